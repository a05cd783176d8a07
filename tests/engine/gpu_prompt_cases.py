"""Prompts that a GPU reads by a recording, against the modules; a program, as engine.decode.gpu's other cases are."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engine.decode.gpu import LONGEST, recorded_width
from engine.decode.graphs import graph_decode
from engine.decode.loop import decode
from engine.decode.modules import ModuleSession
from engine.decode.prompts import Batch
from engine.decode.stepper import Growing
from engine.event import Event, Step
from engine.kernels.skinny import SKINNY
from engine.plan import Plan
from tests.engine.gpu_step_cases import DEVICE, GREEDY, close, pair
from tests.engine.said import Said
from tests.engine.tiny import prompts

LENGTHS = range(1, 131) if DEVICE == "cuda" else (65, 1, 16)
"""Around every width; in Triton's interpreter some, and shorter ones after a longer one."""


@torch.inference_mode()
def logits_agree(kind: str, lengths: range | tuple[int, ...], pad: tuple[int, ...] = (0,), room: int = 192) -> None:
    """Prompts one after another in one cache, each with two tokens behind it."""
    model, packed, native = pair(kind)
    every = torch.randint(1, 250, (len(pad), max(lengths) + 2), generator=torch.Generator().manual_seed(5)).to(DEVICE)
    for length in lengths:
        ids = every[:, : length + 2]
        mask = torch.arange(length + 2, device=DEVICE) >= torch.tensor(pad, device=DEVICE)[:, None]
        wanted = model(ids, attention_mask=mask.long(), position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
        stepper = native.stepper(packed, room, pad)
        close(f"{kind}: prompt of {length}", stepper.prefill(ids[:, :length]), wanted[:, length - 1 : length])
        close(f"{kind}: after {length}", stepper.step(ids[:, length:]), wanted[:, length:])
        assert stepper.length == length + 2
    widths = {recorded_width(len(pad), length, False) for length in lengths}
    assert {width for width, _ in native.steps.prompts} == {width for width in widths if width and width <= room}


@torch.inference_mode()
def packed_agree(kind: str, length: int) -> None:
    """Filled up or not, packed weights give the same."""
    _, packed, native = pair("llama", kind)
    ids = torch.randint(1, 250, (1, length), generator=torch.Generator().manual_seed(6)).to(DEVICE)
    found = native.stepper(packed, 192).prefill(ids)
    wanted = native.steps.read(ids, 0, False, 1)
    assert (found - wanted).norm() < 1e-3 * wanted.norm(), "whole numbers are told apart in 24 bits, which rounds more"
    assert native.steps.prompts


@torch.inference_mode()
def tokens_agree(*widths: int) -> None:
    """A turn that is cut off after its first token leaves nothing behind for the next ones."""
    model, packed, native = pair("qwen2")

    def cut(event: Event) -> None:
        if isinstance(event, Step):
            raise KeyboardInterrupt

    for number, width in enumerate(widths):
        work = Batch((0,), prompts(width), (3,))
        said, plain = Said(), Said()
        decode(Growing(model, work.pad), work, GREEDY, plain)
        runner = native.runner(packed, 1, 192, GREEDY)
        for emit in (said,) if number else (cut, said):
            try:
                graph_decode(runner, work, emit)
            except KeyboardInterrupt:
                assert emit is cut
        assert said.tokens == plain.tokens, f"{width}: {said.tokens} instead of {plain.tokens}"


@torch.inference_mode()
def nothing_is_read_on_the_host(pad: int) -> None:
    """What a CUDA graph cannot hold: an operator that copies a value to the host, or whose shape depends on one."""
    _, packed, native = pair("qwen3")
    native.stepper(packed, 64, (pad,)).prefill(torch.ones(1, 20, dtype=torch.long, device=DEVICE))
    with Operators() as seen:
        native.steps.prompts[32, True].body()
    assert "aten::index_select" in seen.names
    assert not seen.names & {"aten::_local_scalar_dense", "aten::nonzero"}


class Operators(TorchDispatchMode):
    """The names of the operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.name())
        return function(*args, **(kwargs or {}))


def batches_are_told_apart() -> None:
    """By the width that is recorded for them, so that every one is recorded while warming up."""
    _, _, native = pair("llama")
    session, plan = ModuleSession(), Plan("transformers", "m", native=True, cache="static", graph=True)
    session.native, session.length = native, 192
    ones = {length: session.shape(plan, Batch((0,), prompts(length), (1,))) for length in (33, 64, 65)}
    assert ones[33] == ones[64] != ones[65]
    assert recorded_width(1, LONGEST, False) == LONGEST == 8 * recorded_width(8, 33, False)
    assert recorded_width(1, LONGEST + 1, False) is recorded_width(8, SKINNY + 1, False) is None
    assert recorded_width(1, SKINNY, True) == SKINNY and recorded_width(1, SKINNY + 1, True) is None


def main() -> None:
    logits_agree("llama", LENGTHS)
    logits_agree("qwen3", (12, 20), pad=(0, 7))
    logits_agree("llama", (62,), room=64)
    logits_agree("llama", (33,), room=40)
    packed_agree("int8", 20)
    tokens_agree(17, *([3, 64, 130] if DEVICE == "cuda" else []))
    nothing_is_read_on_the_host(3)
    batches_are_told_apart()
    print("every prompt agrees")


if __name__ == "__main__":
    main()
