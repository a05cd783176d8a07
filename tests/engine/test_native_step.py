"""The native step computes what the modules compute, whatever is taken back, on any number of threads."""

import pytest
import torch

from engine.decode.launches import launches
from engine.decode.loop import decode
from engine.decode.native import Native, NativeStepper
from engine.decode.prompts import Batch
from engine.decode.sampling import Sampling
from engine.decode.stepper import Stepper
from engine.event import Step
from engine.kernels.packed import Chooser, Decoder
from engine.kernels.pages import Pages
from engine.kernels.weights import Matrix, Weights
from engine.plan import Plan
from tests.engine.tiny import prompts, tiny

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
LENGTH = 160


def pair(kind: str, threads: int = 2, pad: tuple[int, ...] = (0,), **knobs):
    """A tiny model, and the native stepper over its packed weights."""
    changes = {"layer_types": ["full_attention"] * 2, "sliding_window": None} if kind == "mistral" else {}
    model, whole = tiny(kind, **changes), tiny(kind, **changes)
    plan = Plan("transformers", "m", native=True, threads=threads, **knobs)
    return whole, Native(model, plan).stepper(model, LENGTH, pad)


def ids(tokens: int) -> torch.Tensor:
    return torch.randint(0, 250, (1, tokens), generator=torch.Generator().manual_seed(tokens))


@torch.inference_mode()
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("kind", FAMILIES)
def test_logits_are_those_of_the_modules(kind, threads):
    """A prompt longer than what is read at once, one token, several, and again after some were taken back."""
    model, stepper = pair(kind, threads)
    text = ids(150)
    wanted = model(text).logits
    torch.testing.assert_close(stepper.prefill(text[:, :130]), wanted[:, 129:130], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(stepper.step(text[:, 130:131]), wanted[:, 130:131], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(stepper.step(text[:, 131:140]), wanted[:, 131:140], rtol=1e-3, atol=1e-4)
    stepper.rollback(7)
    torch.testing.assert_close(stepper.step(text[:, 133:150]), wanted[:, 133:150], rtol=1e-3, atol=1e-4)
    assert stepper.length == 150 and stepper.kv_bytes() == 2 * 2 * 2 * LENGTH * 16 * 4


@torch.inference_mode()
def test_a_profiler_sees_a_step_as_one_piece_of_work():
    (_, stepper), token = pair("llama"), ids(1)
    found = launches(lambda: stepper.step(token), torch.device("cpu"))
    assert found["total"] == 1 and [row["name"] for row in found["top"]] == ["whole step"]


@torch.inference_mode()
@pytest.mark.parametrize(("kind", "dim"), [("llama", 32), ("llama", 64), ("qwen2", 32), ("qwen3", 64)])
def test_heads_of_any_size_are_turned_as_the_modules_turn_them(kind, dim):
    """Where a head fills whole blocks and has no norm, RoPE is part of the product: its rows are packed in pairs."""
    model, given = tiny(kind, head_dim=dim), tiny(kind, head_dim=dim)
    kept = Native(given, Plan("transformers", "m", native=True, threads=2))
    assert bool(kept.weights.paired) == (kind != "qwen3")
    stepper, text = kept.stepper(given, LENGTH), ids(70)
    wanted = model(text).logits
    torch.testing.assert_close(stepper.step(text[:, :69]), wanted[:, :69], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(stepper.step(text[:, 69:]), wanted[:, 69:], rtol=1e-3, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_batch_of_unequal_lengths_reads_each_text_as_if_it_were_alone(kind):
    """Three prompts, padded on the left; together they are longer than what is read at once."""
    pad = (0, 41, 7)
    model, stepper = pair(kind, pad=pad)
    width, rows = 90, [ids(100 - left)[0] for left in pad]
    padded = torch.stack([torch.cat((torch.zeros(width + 10 - len(row), dtype=torch.long), row)) for row in rows])
    wanted = [model(row[None]).logits[0] for row in rows]
    found = stepper.prefill(padded[:, :width])
    torch.testing.assert_close(found, torch.stack([w[-11:-10] for w in wanted]), rtol=1e-3, atol=1e-4)
    stepper.step(padded[:, width : width + 1])
    stepper.rollback(1)
    found = stepper.step(padded[:, width:])
    torch.testing.assert_close(found, torch.stack([w[-10:] for w in wanted]), rtol=1e-3, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("packed", [None, {"kind": "int8", "inputs": 16}, {"kind": "int4", "inputs": 8}])
def test_how_many_tokens_are_read_together_changes_no_bit(packed):
    """So that a batch, or a check of guesses, writes what one token at a time would have written."""
    text = ids(29)
    together = pair("llama", packed=packed)[1].step(text)
    stepper = pair("llama", packed=packed)[1]
    alone = torch.cat([stepper.step(text[:, place : place + 1]) for place in range(29)], dim=1)
    assert torch.equal(together, alone)


@torch.inference_mode()
def test_prompts_may_be_read_in_16_bits_where_the_model_is():
    model, stepper = pair("llama", dtype="bfloat16")
    text = ids(100)
    wanted = model(text).logits
    assert (stepper.step(text) - wanted).norm() < 0.02 * wanted.norm()


@torch.inference_mode()
def test_a_wrong_rollback_would_be_seen():
    model, stepper = pair("llama")
    text = ids(20)
    stepper.prefill(text[:, :10])
    stepper.rollback(1)
    assert not torch.allclose(stepper.step(text[:, 10:11]), model(text).logits[:, 10:11], atol=1e-3)


@torch.inference_mode()
@pytest.mark.parametrize(
    ("packed", "most"),
    [({"kind": "int8", "inputs": 16}, 0.06), ({"kind": "int8", "inputs": 8}, 0.08),
     ({"kind": "int4", "inputs": 16}, 0.6), ({"kind": "int4", "inputs": 8}, 0.6)],
)  # fmt: skip
def test_packed_integers_lose_as_much_as_they_may(packed, most):
    model, stepper = pair("llama", packed=packed)
    text = ids(40)
    wanted, found = model(text).logits, stepper.step(text)
    assert (found - wanted).norm() < most * wanted.norm()


def test_weights_that_fit_into_16_bits_are_kept_so_and_lose_nothing():
    wide = torch.randn(40, 64)
    assert Matrix(wide, "float32", Pages()).kind == "float32"
    kept = Matrix(wide.bfloat16().float(), "float32", Pages())
    assert kept.kind == "bfloat16" and kept.bytes() == 64 * 64 * 2


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_packed_matrix_is_as_large_as_is_said(kind):
    matrix = Matrix(torch.randn(70, 64), kind, Pages())
    assert matrix.rows == 96 and matrix.bytes() == {"int8": 96 * 64 + 8 * 96, "int4": 96 * 32 + 2 * 96 * 2}[kind]


def repeated(head: torch.Tensor) -> None:
    head[50:] = head[torch.arange(50, len(head)) % 50]


def broken(head: torch.Tensor) -> None:
    head[[70, 190]] = float("nan")


@torch.inference_mode()
@pytest.mark.parametrize("vocabulary", [200, 256])
@pytest.mark.parametrize("change", [lambda head: None, torch.zero_, repeated, broken])
def test_the_step_chooses_as_numpy_does(vocabulary, change):
    """Of equals the lowest, of what is no number the first, nothing banned, and no row that fills a block up."""
    model = tiny("llama", vocab_size=vocabulary, tie_word_embeddings=False)
    change(model.get_output_embeddings().weight.data)
    decoder = Decoder(Weights(model, "float32", "float32"), LENGTH, 3, True, 3)
    banned, tokens = [0, 11, 50], [3, 9, 4]
    choose, texts = Chooser(decoder, range(3), banned), torch.arange(3)
    for place in range(20):
        logits = decoder.step(torch.tensor(tokens), texts, torch.full((3,), place), texts)
        logits[:, banned] = -torch.inf
        tokens = choose(tokens, [place] * 3)
        assert tokens == logits.numpy().argmax(-1).tolist()


def test_greedy_decoding_by_the_step_is_that_by_its_logits():
    """Texts of unequal lengths that end at different steps, with an end mark forbidden and not; and a sampled one."""
    sets = {"pad": (0, 2, 5), "packed": {"kind": "int8", "inputs": 8}}
    batch = Batch((0, 1, 2), prompts(9, 7, 4), (20, 20, 3))
    for sampling in (
        Sampling(frozenset({7}), True),
        Sampling(frozenset(range(9)), False),
        Sampling(frozenset(), True, 0.7),
    ):
        found = []
        for kind in (NativeStepper, ByLogits):
            stepper, events = pair("llama", **sets)[1], []
            stepper.__class__ = kind
            with torch.inference_mode():
                decode(stepper, batch, sampling, events.append)
            found.append([(e.requests, e.tokens, e.cached) for e in events if isinstance(e, Step)])
        assert found[0] == found[1]


class ByLogits(NativeStepper):
    write = Stepper.write
