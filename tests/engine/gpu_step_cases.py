"""The native step of a GPU against the modules; a program, so that Triton's interpreter can be chosen on a CPU."""

import sys

import torch

from engine.decode.gpu import GpuStepper
from engine.decode.gpu_native import GpuNative
from engine.decode.graphs import graph_decode
from engine.decode.loop import decode
from engine.decode.prompts import Batch
from engine.decode.sampling import Sampling
from engine.decode.stepper import Growing
from engine.plan import Plan
from tests.engine.said import Said
from tests.engine.tiny import prompts, tiny

DEVICE = sys.argv[1] if len(sys.argv) > 1 else "cpu"
GREEDY = Sampling(frozenset({0}), True)
FULL = {"mistral": {"layer_types": ["full_attention"] * 2, "sliding_window": None}}


def pair(kind: str, packed: str | None = None):
    """The same tiny model as modules, and packed."""
    whole, model = (tiny(kind, **FULL.get(kind, {})).to(DEVICE) for _ in range(2))
    return whole, model, GpuNative(model, Plan("transformers", "m", native=True, packed=packed and {"kind": packed}))


def close(name: str, found: torch.Tensor, wanted: torch.Tensor) -> None:
    worst = float((found - wanted).abs().max())
    assert worst < 2e-4, f"{name}: off by {worst}"


@torch.inference_mode()
def logits_agree(kind: str, pad: list[int]) -> None:
    """A prompt, one token, several, more than a kernel takes, and again after some were taken back."""
    model, packed, native = pair(kind)
    ids = torch.randint(1, 250, (len(pad), 60), generator=torch.Generator().manual_seed(len(kind))).to(DEVICE)
    mask = torch.arange(60, device=DEVICE) >= torch.tensor(pad, device=DEVICE)[:, None]
    wanted = model(ids, attention_mask=mask.long(), position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
    stepper = native.stepper(packed, 128, pad)
    close(f"{kind}: prompt", stepper.prefill(ids[:, :20]), wanted[:, 19:20])
    close(f"{kind}: one token", stepper.step(ids[:, 20:21]), wanted[:, 20:21])
    close(f"{kind}: several", stepper.step(ids[:, 21:26]), wanted[:, 21:26])
    stepper.rollback(3)
    close(f"{kind}: taken back", stepper.step(ids[:, 23:26]), wanted[:, 23:26])
    close(f"{kind}: many", stepper.step(ids[:, 26:60]), wanted[:, 26:60])
    assert stepper.length == 60


@torch.inference_mode()
def tokens_agree(kind: str, *widths: int) -> None:
    """The step that feeds itself writes what the plain loop writes, also in a second turn."""
    model, packed, native = pair(kind)
    work = Batch(tuple(range(len(widths))), prompts(*widths), (6,) * len(widths))
    plain = Said()
    decode(Growing(model, work.pad), work, GREEDY, plain)
    for _ in range(2):
        said = Said()
        stepper = graph_decode(native.runner(packed, len(widths), 64, GREEDY), work, said)
        assert isinstance(stepper, GpuStepper)
        assert said.tokens == plain.tokens, f"{kind}: {said.tokens} instead of {plain.tokens}"


@torch.inference_mode()
def sampled_tokens_repeat() -> None:
    _, packed, native = pair("llama")
    work = Batch((0, 1), prompts(5, 5), (4, 4))
    sampling = Sampling(frozenset(), True, 1.0, 7)
    turns = []
    for _ in range(2):
        said = Said()
        graph_decode(native.runner(packed, 2, 64, sampling), work, said)
        turns.append(said.tokens)
    assert turns[0] == turns[1], "a seed gives the same text"


@torch.inference_mode()
def integers_lose_as_much_as_they_may(kind: str, most: float) -> None:
    model, packed, native = pair("llama", kind)
    ids = torch.randint(1, 250, (1, 12), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    found, wanted = native.stepper(packed, 64).step(ids), model(ids).logits
    assert 0 < (found - wanted).norm() < most * wanted.norm(), f"{kind} is too far off"
    assert native.quantization()["kind"] == native.stored() == kind


def main() -> None:
    logits_agree("llama", [0])
    logits_agree("qwen2", [0])
    logits_agree("qwen3", [0, 7])
    tokens_agree("mistral", 6)
    tokens_agree("qwen3", 4, 7, 2)
    sampled_tokens_repeat()
    integers_lose_as_much_as_they_may("int8", 0.05)
    integers_lose_as_much_as_they_may("int4", 0.6)
    print("every step agrees")


if __name__ == "__main__":
    main()
