"""Without a C++ compiler numba compiles the native step: the same tokens, or a sentence where neither is there."""

from dataclasses import replace

import pytest
import torch

from engine.decode.native import Native
from engine.kernels import packed
from engine.kernels.weights import Weights
from engine.measure import fit
from engine.measure.ceiling import Use
from engine.measure.machine import machine
from engine.models.architecture import architecture
from engine.optimizations.native_step import NativeStep
from engine.optimizations.packed_weights import PackedWeights
from engine.plan import Plan
from engine.refusal import Refusal
from tests.engine.tiny import tiny

BARE = replace(machine(), compiler=None, gpus=(), packages={**machine().packages, "numba": None})


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")


def native(kind: str, **knobs):
    changes = {"layer_types": ["full_attention"] * 2, "sliding_window": None} if kind == "mistral" else {}
    whole, given = tiny(kind, **changes), tiny(kind, **changes)
    return whole, given, Native(given, Plan("transformers", "m", native=True, threads=knobs.pop("threads", 2), **knobs))


def ids(tokens: int) -> torch.Tensor:
    return torch.randint(0, 250, (1, tokens), generator=torch.Generator().manual_seed(tokens))


@torch.inference_mode()
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
def test_logits_are_those_of_the_modules(kind, threads):
    """A prompt longer than what is read at once, one token, several, and again after some were taken back."""
    model, given, kept = native(kind, threads=threads)
    stepper, text = kept.stepper(given, 160), ids(150)
    assert kept.built_by == "numba"
    wanted = model(text).logits
    torch.testing.assert_close(stepper.prefill(text[:, :130]), wanted[:, 129:130], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(stepper.step(text[:, 130:131]), wanted[:, 130:131], rtol=1e-3, atol=1e-4)
    stepper.step(text[:, 131:140])
    stepper.rollback(7)
    found = stepper.step(text[:, 133:150])
    torch.testing.assert_close(found, wanted[:, 133:150], rtol=1e-3, atol=1e-4)
    assert torch.equal(found.argmax(-1), wanted[:, 133:150].argmax(-1))


@torch.inference_mode()
def test_texts_of_unequal_lengths_are_read_together():
    model, given, kept = native("llama")
    rows = [ids(40)[0], ids(33)[0]]
    padded = torch.stack([torch.cat((torch.zeros(40 - len(row), dtype=torch.long), row)) for row in rows])
    found = kept.stepper(given, 64, (0, 7)).prefill(padded)
    wanted = torch.stack([model(row[None]).logits[0, -1:] for row in rows])
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("inputs", [16, 8])
def test_integers_are_multiplied_as_the_compiled_step_does(kind, inputs, monkeypatch):
    """One token at a time, four at once, and what is left over."""
    found = []
    for name in ("no-such-compiler", None):
        monkeypatch.setenv("CXX", name) if name else monkeypatch.delenv("CXX")
        _, given, kept = native("llama", packed={"kind": kind, "inputs": inputs})
        stepper = kept.stepper(given, 64)
        found.append(torch.cat([stepper.step(ids(30)), stepper.step(ids(1)), stepper.step(ids(7))], 1))
        assert kept.built_by == ("numba" if name else "C++") and not found[-1].isnan().any()
    assert (found[0] - found[1]).abs().max() < 1e-3 * found[1].abs().max()


@torch.inference_mode()
def test_how_many_tokens_are_read_together_changes_no_bit():
    text, steppers = ids(23), [kept.stepper(given, 64) for _, given, kept in (native("llama"), native("llama"))]
    alone = torch.cat([steppers[1].step(text[:, place : place + 1]) for place in range(23)], 1)
    assert torch.equal(steppers[0].step(text), alone)


def test_without_both_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(packed, "find_spec", lambda name: None)
    _, given, kept = native("llama")
    with pytest.raises(Refusal, match="Install g\\+\\+, or pip install numba"):
        kept.stepper(given, 64)
    for option in (NativeStep, PackedWeights):
        assert "install g++, or pip install numba" in option.unavailable(BARE)
        assert option.unavailable(replace(BARE, packages={"numba": "0.68.1"})) is None
        assert option.unavailable(replace(BARE, compiler="g++")) is None


def test_the_forecast_counts_what_numba_adds(monkeypatch):
    config = tiny("llama").config
    shape, plan = architecture(config.to_dict()), Plan("transformers", "m", native=True)
    monkeypatch.setattr(fit, "machine", lambda: replace(BARE, compiler="g++"))
    before = fit.fit(plan, shape, Use(10, 10), 1e8)
    monkeypatch.setattr(fit, "machine", lambda: BARE)
    assert fit.fit(plan, shape, Use(10, 10), 1e8).process == before.process + fit.NUMBA


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_heads_whose_rows_are_packed_in_pairs(kind):
    model, given = tiny(kind, head_dim=32), tiny(kind, head_dim=32)
    kept = Native(given, Plan("transformers", "m", native=True, threads=2))
    text = ids(40)
    assert kept.weights.paired == 32
    torch.testing.assert_close(kept.stepper(given, 64).step(text), model(text).logits, rtol=1e-3, atol=1e-4)


@torch.inference_mode()
def test_the_step_chooses_among_its_logits():
    model = tiny("llama", vocab_size=200, tie_word_embeddings=False)
    model.get_output_embeddings().weight.data[[70, 190]] = 0
    decoder = packed.Decoder(Weights(model, "float32", "float32"), 64, 2, True, 2)
    rows, banned = torch.arange(2), [5, 70]
    choose, tokens = packed.Chooser(decoder, range(2), banned), [3, 9]
    for place in range(5):
        logits = decoder.step(torch.tensor(tokens), rows, torch.full((2,), place), rows)
        logits[:, banned] = -torch.inf
        tokens = choose(tokens, [place] * 2)
        assert tokens == logits.argmax(-1).tolist()
