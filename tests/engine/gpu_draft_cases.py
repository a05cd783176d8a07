"""A GPU's native step with its own weights in fewer bits as draft, or a trained one; a program, as others here."""

import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from engine.decode.drafting import Drafting
from engine.decode.gpu_coarse import GpuOwnWeights
from engine.decode.gpu_native import GpuNative
from engine.decode.loop import decode
from engine.decode.prompts import Batch
from engine.decode.sampling import Sampling
from engine.decode.stepper import Growing
from engine.decode.trained import save
from engine.distil.training import student
from engine.models import drafts
from engine.plan import Plan
from tests.engine.said import Said
from tests.engine.tiny import prompts, tiny

DEVICE = sys.argv[1] if len(sys.argv) > 1 else "cpu"
GREEDY = Sampling(frozenset(), True)
ROOM = 64


def asked(kind: str, guesses: int) -> Plan:
    packed = {"kind": kind, "inputs": 16}
    draft = {"model": "m", "dtype": "float32", "quantization": None, "packed": packed}
    speculation = {"kind": "draft_model", "guesses": guesses, "adaptive": False}
    return Plan("transformers", "m", native=True, cache="static", draft=draft, speculation=speculation)


@torch.inference_mode()
def text_is_that_of_the_modules(family: str, kind: str, guesses: int, length: int) -> None:
    """And the one cache holds what reading that text at once leaves there: the check has written all anew."""
    plain, packed, plan, drafting = tiny(family), tiny(family).to(DEVICE), asked(kind, guesses), Drafting()
    drafting.own = GpuOwnWeights(packed, plan)
    whole, (prompt,) = GpuNative(packed, plan), prompts(7)
    batch, wanted, guessed = Batch((0,), (prompt,), (length,)), Said(), Said()
    decode(Growing(plain, [0]), batch, GREEDY, wanted)
    drafting.turn(plan, whole.stepper(packed, ROOM), batch, GREEDY, ROOM, guessed)
    assert guessed.tokens == wanted.tokens, f"{family}, {kind}: {guessed.tokens}, not {wanted.tokens}"
    text = torch.tensor([[*prompt, *guessed.tokens[0][:-1]]], device=DEVICE)
    assert drafting.draft.part.steps.context is whole.steps.context
    found = whole.steps.context.cache[..., : text.shape[1], :].clone()
    whole.stepper(packed, ROOM).prefill(text)
    off = float((found - whole.steps.context.cache[..., : text.shape[1], :]).abs().max())
    assert off < 1e-4, f"{family}, {kind}: the check left rough keys or values, off by {off}"
    tally = drafting.tally
    assert drafting.kv_bytes() == 0 and drafting.format() == kind
    assert 0 < drafting.weights_bytes() < whole.weights.bytes()
    print(f"{family} {kind}: {tally.accepted} of {tally.drafted} guesses right")


@torch.inference_mode()
def a_trained_draft_computes_in_its_models_format(length: int) -> None:
    """Whatever format was asked for: one that differed from the vectors of tokens had no attention to run."""
    asked_for, drafting, alone, guessed = replace(asked("int8", 2), device="cuda"), Drafting(), Said(), Said()
    model, (prompt,) = tiny("llama").to(DEVICE), prompts(7)
    with TemporaryDirectory() as folder:
        save(student(model, (0,), torch.arange(1, 129)), Path(folder) / "tiny", {"base": "m", "layers": [0]})
        drafting.trained = drafts.described(Path(folder) / "tiny")
        model = model.bfloat16()
        drafting.load(asked_for, lambda phase: None, model)
    whole, batch = GpuNative(model, asked_for), Batch((0,), (prompt,), (length,))
    assert drafting.native.weights.dtype == whole.weights.dtype == torch.bfloat16
    decode(whole.stepper(model, ROOM), batch, GREEDY, alone)
    drafting.turn(asked_for, whole.stepper(model, ROOM), batch, GREEDY, ROOM, guessed)
    assert guessed.tokens == alone.tokens, f"{guessed.tokens}, not {alone.tokens}"
    assert drafting.format() == "int8" and drafting.tally.drafted


def main() -> None:
    text_is_that_of_the_modules("llama", "int8", 3, 6)
    text_is_that_of_the_modules("qwen3", "int4", 2, 5)
    a_trained_draft_computes_in_its_models_format(4)
    print("every guess is checked")


if __name__ == "__main__":
    main()
