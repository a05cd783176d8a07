"""Continuous batching over a GPU's native steps against the plain lane; a program, as its other cases are."""

from typing import Any

import torch

from engine.decode.arrivals import InTurn
from engine.decode.continuous import Engine, engine
from engine.decode.prompts import Batch, pick
from engine.decode.sampling import Sampling
from engine.decode.scheduler import Work
from engine.event import Step
from engine.refusal import Refusal
from tests.engine.gpu_prompt_cases import Operators
from tests.engine.gpu_step_cases import DEVICE, GREEDY, pair
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
    """Two tokens of the first row are kept and its prompt goes on later; the second row decodes."""
    _, native = made("llama")
    cache = native.slots.context.cache.normal_()
    before = cache.clone()
    native.slots.read(Work((1,), ()), [2, 3], [5])
    assert torch.equal(cache[:, :, 0, :, :2], before[:, :, 0, :, :2]), "a place that is stale"
    assert torch.equal(cache[:, :, 1, :, :3], before[:, :, 1, :, :3]) and torch.equal(cache[:, :, 2], before[:, :, 2])
    assert not torch.equal(cache[:, :, 1, :, 3], before[:, :, 1, :, 3])


def recordings_are_kept_and_counted() -> None:
    _, _, native = pair("llama")
    slots = native.slots(5, 192, 192)
    assert (list(slots.steps), list(slots.pieces)) == ([1, 2, 4, 5], [16, 32, 64, 128, 192])
    assert native.recordings == (9 if DEVICE == "cuda" else 0)
    _, _, packed = pair("llama", "int8")
    assert list(packed.slots(1, 192, 192).pieces) == [16, 32, 64], "longer ones would unpack the weights"


def main() -> None:
    tokens_agree("llama")
    tokens_agree("qwen3", FEW, slots=2)
    tokens_agree("llama", Batch((0,), prompts(62), (2,)), chunk=64)
    turns_leave_nothing_to_the_next_one()
    a_broken_lane_says_so()
    nothing_is_read_on_the_host()
    a_row_that_is_being_read_loses_nothing_beside_others()
    recordings_are_kept_and_counted()
    print("every slot agrees")


if __name__ == "__main__":
    main()
