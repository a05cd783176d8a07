"""Continuous batching over a GPU's native steps against the plain lane; a program, as its other cases are."""

import time
from typing import Any
from unittest.mock import patch

import torch

from engine.decode import gpu_slots
from engine.decode.arrivals import InTurn
from engine.decode.continuous import Engine, engine
from engine.decode.gpu_slots import LARGE, SMALL, GpuSlots, counts, widths
from engine.decode.prompts import Batch, pick
from engine.decode.sampling import Sampling
from engine.decode.scheduler import Chunk, Work
from engine.event import Step
from engine.refusal import Refusal
from tests.engine.gpu_prompt_cases import Operators
from tests.engine.gpu_step_cases import DEVICE, GREEDY, close, pair
from tests.engine.said import Said
from tests.engine.tiny import prompts

ASKED = Batch(tuple(range(4)), prompts(2, 3, 30, 7), (2, 4, 2, 1))
"""More requests than slots, ragged. The first one leaves while the third one's prompt is being read, whose chunks go on
in the first row then, below another one that decodes."""
FEW = Batch((0, 1, 2), prompts(4, 2, 3), (2, 3, 1))


def made(kind: str, packed: str | None = None, asked: Batch = ASKED, **knobs: Any) -> tuple[Engine, Engine]:
    """Engines over the modules of a tiny model and over its native steps."""
    whole, model, native = pair(kind, packed)
    knobs = {"slots": 3, "chunk": 16, "memory_mb": 0, **knobs}
    return engine(whole, asked, knobs, 100.0), engine(model, asked, knobs, 100.0, native)


@torch.inference_mode()
def written(ready: Engine, asked: Batch = ASKED, sampling: Sampling = GREEDY) -> dict[int, list[int]]:
    said = Said()
    ready.run(InTurn(asked, said), sampling)
    return said.tokens


def tokens_agree(kind: str, asked: Batch = ASKED, **knobs: Any) -> None:
    plain, native = made(kind, asked=asked, **knobs)
    assert written(native, asked) == written(plain, asked), f"{kind}: {knobs}"
    assert native.native and native.slots.bytes() == native.slots.context.cache.numel() * 4


def turns_leave_nothing_to_the_next_one() -> None:
    """One that is cut off, one in which an end mark frees a slot, and one in another order."""
    plain, native = made("qwen2", asked=FEW, slots=2)
    expected = written(plain, FEW)

    def cut(event: Any) -> None:
        if isinstance(event, Step) and 2 in event.requests:
            raise KeyboardInterrupt

    try:
        with torch.inference_mode():
            native.run(InTurn(FEW, cut), GREEDY)
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("nothing was cut off")
    stop = Sampling(frozenset({expected[1][0]}), fixed_length=False)
    ended = written(plain, FEW, stop)
    assert written(native, FEW, stop) == ended != expected
    assert written(native, pick(FEW, (2, 1, 0))) == expected


def a_broken_lane_says_so() -> None:
    _, model, native = pair("llama")
    with torch.inference_mode():
        native.weights.norm.gain[3] = torch.nan
    try:
        written(engine(model, FEW, {"slots": 1, "chunk": 16, "memory_mb": 0}, 100.0, native), FEW)
    except Refusal as refusal:
        assert "not a number" in str(refusal)
    else:
        raise AssertionError("tokens of what is not a number")


@torch.inference_mode()
def several_texts_are_read_by_one_recording(kind: str) -> None:
    """Two prompts at once, then two blocks of one beside the other's next token, over slots full of noise.

    The second prompt fills its slot to the last place.
    """
    whole, _, native = pair(kind)
    slots, (short, long) = native.slots(3, 32, 32), prompts(16, 32)
    slots.context.cache.normal_()
    ran = counted(slots)
    found = slots.read(Work((), (Chunk(0, 0, 15, True), Chunk(2, 0, 5, False))), [0, 0, 0], (*short[:15], *long[:5]))
    agree(whole, found, short[:15])
    found = slots.read(Work((0,), (Chunk(2, 5, 26, True),)), [15, 0, 5], (short[15], *long[5:31]))
    agree(whole, found, short, long[:31])
    agree(whole, slots.read(Work((2,), ()), [16, 0, 31], long[31:]), long)
    assert ran == [32, 32, 3]


@torch.inference_mode()
def more_than_the_largest_piece_holds_is_read_by_several() -> None:
    """The other row's next token is read beside the first of them, and it loses nothing beside the second."""
    whole, _, native = pair("llama")
    slots, (long, short) = native.slots(2, 32, 16), prompts(18, 4)
    ran = counted(slots)
    agree(whole, slots.read(Work((), (Chunk(1, 0, 2, True),)), [0, 0], short[:2]), short[:2])
    found = slots.read(Work((1,), (Chunk(0, 0, 17, True),)), [0, 2], (short[2], *long[:17]))
    agree(whole, found, short[:3], long[:17])
    agree(whole, slots.read(Work((0, 1), ()), [17, 3], (long[17], short[3])), long, short)
    assert ran == [16, 16, 16, 2]


@torch.inference_mode()
def packed_weights_are_read_apart() -> None:
    """For the next tokens and for prompts, by their own kernels; blocks are larger here, as in long slots."""
    _, model, native = pair("llama", "int8")
    with patch.multiple(gpu_slots, LONG=0, LARGE=32):
        slots, (first, second) = native.slots(2, 32, 16), prompts(4, 22)
    ran = counted(slots)
    slots.read(Work((), (Chunk(0, 0, 3, True),)), [0], first[:3])
    found = slots.read(Work((0,), (Chunk(1, 0, 22, True),)), [3, 0], (first[3], *second))
    for logits, text in zip(found, (first, second), strict=True):
        exact = native.stepper(model, 32).prefill(torch.tensor([text], device=DEVICE))[0, -1]
        assert (logits - exact).norm() < 1e-3 * exact.norm(), "whole numbers are told apart in 24 bits"
    assert ran == [32, 1, 32] and slots.block == 32


def agree(model: Any, found: torch.Tensor, *texts: tuple[int, ...]) -> None:
    """Logits [texts, vocabulary] are those that the modules have after these texts."""
    for logits, text in zip(found, texts, strict=True):
        close(f"{len(text)} tokens", logits, model(torch.tensor([text], device=DEVICE)).logits[0, -1])


def counted(slots: GpuSlots) -> list[int]:
    """Which steps and pieces of these slots run: their rows, or their tokens of prompts."""
    ran: list[int] = []
    for name, one in (*slots.steps.items(), *slots.pieces.items()):
        one.run = lambda name=name, run=one.run: (ran.append(name), run())[1]
    return ran


@torch.inference_mode()
def nothing_is_read_on_the_host() -> None:
    """What a CUDA graph cannot hold, in a step of rows at different places and in a piece of a prompt."""
    _, native = made("qwen3")
    for one in native.slots.recordings():
        with Operators() as seen:
            one.body()
        assert not seen.names & {"aten::_local_scalar_dense", "aten::nonzero"}, seen.names
    assert "aten::index_select" in seen.names
    assert (list(native.slots.steps), list(native.slots.pieces)) == ([1, 2, 3], [16])


@torch.inference_mode()
def a_row_that_is_being_read_loses_nothing_beside_others() -> None:
    """Two tokens of the first row are kept and its prompt goes on later; the second row decodes, the third is read."""
    _, native = made("llama")
    cache = native.slots.context.cache
    for work, third in ((Work((1,), ()), 0), (Work((1,), (Chunk(2, 0, 4, True),)), 4)):
        before = cache.normal_().clone()
        native.slots.read(work, [2, 3], [5, *[6] * third])
        assert torch.equal(cache[:, :, 0, :, :2], before[:, :, 0, :, :2]), "a place that is stale"
        assert torch.equal(cache[:, :, 0, :, 3:], before[:, :, 0, :, 3:]), "behind the place that is written next"
        assert torch.equal(cache[:, :, 1, :, :3], before[:, :, 1, :, :3])
        assert not torch.equal(cache[:, :, 1, :, 3], before[:, :, 1, :, 3])
        changed = (cache[:, :, 2] != before[:, :, 2]).any(-1).any(0).any(0).any(0)
        assert changed[:third].all() and not changed[SMALL:].any() and (third or not changed[1:].any())


def recordings_are_kept_and_counted() -> None:
    """How many there are decides how long warming up takes on a GPU."""
    _, _, native = pair("llama")
    slots = native.slots(2, 64, 16)
    assert (list(slots.steps), list(slots.pieces)) == ([1, 2], [16])
    assert native.recordings == (3 if DEVICE == "cuda" else 0)
    assert counts(5) == [1, 2, 4, 5] and counts(1) == [1]
    assert widths(512, SMALL, False) == widths(2048, LARGE, False) == [64, 128, 256, 512]
    assert widths(9, SMALL, False) == [16] and widths(65, SMALL, False) == [64, 128]
    assert widths(2048, SMALL, True) == [16, 32, 64] and widths(1, LARGE, True) == [64], "longer ones would unpack"


CASES = {
    "tokens of llama": lambda: tokens_agree("llama"),
    "tokens of qwen3": lambda: tokens_agree("qwen3", FEW, slots=2, chunk=32),
    "several texts of llama": lambda: several_texts_are_read_by_one_recording("llama"),
    "several texts of qwen3": lambda: several_texts_are_read_by_one_recording("qwen3"),
    "more than a piece holds": more_than_the_largest_piece_holds_is_read_by_several,
    "packed weights": packed_weights_are_read_apart,
    "turns": turns_leave_nothing_to_the_next_one,
    "a broken lane": a_broken_lane_says_so,
    "nothing on the host": nothing_is_read_on_the_host,
    "a row that is being read": a_row_that_is_being_read_loses_nothing_beside_others,
    "recordings": recordings_are_kept_and_counted,
}


def main() -> None:
    for name, case in CASES.items():
        began = time.perf_counter()
        case()
        print(f"{name}: {time.perf_counter() - began:.1f} s", flush=True)
    print("every slot agrees")


if __name__ == "__main__":
    main()
