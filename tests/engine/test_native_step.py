"""The native step computes what the modules compute, whatever is taken back, on any number of threads."""

import pytest
import torch

from engine.decode.native import Native
from engine.kernels.packed import Matrix
from engine.kernels.pages import Pages
from engine.plan import Plan
from tests.engine.tiny import tiny

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
