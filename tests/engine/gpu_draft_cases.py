"""A GPU's native step with its own weights in fewer bits as draft; a program, as others here."""

import sys

import torch

from engine.decode.drafting import Drafting
from engine.decode.gpu_coarse import GpuOwnWeights
from engine.decode.gpu_native import GpuNative
from engine.decode.loop import decode
from engine.decode.prompts import Batch
from engine.decode.sampling import Sampling
from engine.decode.stepper import Growing
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


def main() -> None:
    text_is_that_of_the_modules("llama", "int8", 3, 6)
    text_is_that_of_the_modules("qwen3", "int4", 2, 5)
    print("every guess is checked")


if __name__ == "__main__":
    main()
