"""Continuous batching over native steps writes, request by request, what the plain continuous lane writes."""

from functools import cache
from typing import Any

import pytest
import torch

from engine.decode.arrivals import Arrivals, InTurn
from engine.decode.continuous import Engine, engine
from engine.decode.loop import decode
from engine.decode.modules import ModuleSession
from engine.decode.native import Native
from engine.decode.native_slots import NativeSlots
from engine.decode.prompts import Batch, pick
from engine.decode.sampling import Sampling
from engine.decode.stepper import Growing
from engine.event import Step
from engine.measure.machine import machine
from engine.optimizations.continuous_batching import ContinuousBatching
from engine.optimizations.native_step import NativeStep
from engine.plan import Plan
from engine.refusal import Refusal
from engine.spec import Lane, Workload, plan_for
from tests.engine.said import Said
from tests.engine.tiny import prompts, tiny
from tests.engine.tiny_models import tiny as tiny_folder

GREEDY = Sampling(frozenset(), fixed_length=True)
ASKED = Batch(
    tuple(range(9)), prompts(5, 40, 1, 33, 8, 150, 2, 16, 11), (12, 3, 20, 7, 1, 12, 9, 16, 5)
)  # fmt: skip
"""More requests than slots, ragged, one prompt longer than a decoder reads at once, answers of different lengths."""
KNOBS = {"slots": 3, "chunk": 16, "memory_mb": 0}
KINDS = ("llama", "qwen2", "qwen3")


def made(kind: str, native: bool = True, asked: Batch = ASKED, **knobs: Any) -> Engine:
    """An engine over a tiny model's native steps, or over its modules."""
    model = tiny(kind)
    own = Native(model, Plan("transformers", "m", native=True, threads=2)) if native else None
    return engine(model, asked, {**KNOBS, **knobs}, 100.0, own)


@torch.inference_mode()
def written(ready: Engine, asked: Batch = ASKED, sampling: Sampling = GREEDY) -> dict[int, list[int]]:
    said = Said()
    ready.run(InTurn(asked, said), sampling)
    return said.tokens


@cache
@torch.inference_mode()
def alone(kind: str, sampling: Sampling = GREEDY) -> dict[int, list[int]]:
    """What the plain loop writes, one request after another."""
    said, model = Said(), tiny(kind)
    for place in range(len(ASKED.requests)):
        decode(Growing(model, [0]), pick(ASKED, [place]), sampling, said)
    return said.tokens


@pytest.mark.parametrize("chunk", [16, 2048])
@pytest.mark.parametrize("kind", KINDS)
def test_the_tokens_are_those_of_the_plain_lane(kind, chunk):
    """Also in a second turn over used slots, in another order."""
    ready = made(kind, chunk=chunk)
    expected = written(made(kind, native=False, chunk=chunk))
    assert written(ready) == expected == alone(kind)
    assert ready.chunks > 9 * (chunk == 16)
    assert (ready.peak, ready.admitted, ready.slots.rows, ready.native) == (3, 9, 3, True)
    assert written(ready, pick(ASKED, range(8, -1, -1))) == expected


@pytest.mark.parametrize("slots", [1, 2, 9])
def test_however_many_slots_there_are(slots):
    assert written(made("qwen3", slots=slots)) == alone("qwen3")


def test_an_end_mark_ends_a_request_and_frees_its_slot():
    free = alone("llama")
    stop = Sampling(frozenset({free[2][4], free[7][2]}), fixed_length=False)
    expected = alone("llama", stop)
    assert expected != free and written(made("llama"), sampling=stop) == expected


@torch.inference_mode()
def test_requests_that_arrive_by_the_clock_are_answered():
    workload, said, ready = Workload(prompts=("x",), requests=9, arrivals="poisson", rate=500.0), Said(), made("llama")
    ready.run(Arrivals(ASKED, workload, said), GREEDY)
    assert said.tokens == alone("llama") and said.requests == ready.admitted == 9


@torch.inference_mode()
def test_drawn_tokens_are_those_of_the_plain_lane():
    sampling = Sampling(frozenset(), True, 1.0, 7)
    found, again = (written(made("llama", native), sampling=sampling) for native in (True, True))
    assert found == again == written(made("llama", native=False), sampling=sampling)


@torch.inference_mode()
def test_a_turn_that_is_stopped_leaves_nothing_to_the_next_one():
    ready = made("llama")

    def stop(event: Any) -> None:
        if isinstance(event, Step) and 4 in event.requests:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ready.run(InTurn(ASKED, stop), GREEDY)
    assert written(ready) == alone("llama")


@torch.inference_mode()
def test_what_is_not_a_number_is_refused_in_a_sentence():
    model = tiny("llama")
    model.model.norm.weight[3] = torch.nan
    ready = engine(model, ASKED, KNOBS, 100.0, Native(model, Plan("transformers", "m", native=True)))
    with pytest.raises(Refusal, match="not a number"):
        written(ready)


def test_a_text_may_fill_its_slot_to_the_last_place():
    """The longest request has 64 tokens with its answer, and so has a slot."""
    asked = Batch((0, 1, 2), prompts(54, 60, 3), (10, 4, 61))
    ready = made("llama", asked=asked, slots=2)
    assert ready.slots.length == 64
    assert written(ready, asked) == written(made("llama", native=False, asked=asked, slots=2), asked)


def test_a_row_that_does_not_move_with_its_request_is_caught(monkeypatch):
    monkeypatch.setattr(NativeSlots, "move", lambda self, source, target, tokens: None)
    assert written(made("llama")) != alone("llama")


def test_a_place_that_is_stale_is_caught(monkeypatch):
    """Sabotage: a decoding row's token is written where the last one lies."""
    read = NativeSlots.read
    monkeypatch.setattr(
        NativeSlots, "read", lambda self, work, cached, ids: read(self, work, [kept - 1 for kept in cached], ids)
    )
    assert written(made("llama")) != alone("llama")


@torch.inference_mode()
def test_a_chunk_beside_everybodys_tokens_reads_the_weights_once(monkeypatch):
    """Three tokens and a chunk of 128 are one call, where a decoder alone reads 128 at most."""
    ready, calls = made("llama", chunk=128), []
    step = ready.slots.decoder.library.decoder_step
    monkeypatch.setattr(ready.slots.decoder.library, "decoder_step", lambda *given: (calls.append(1), step(*given)))
    steps, read = [], NativeSlots.read
    monkeypatch.setattr(NativeSlots, "read", lambda *given: (steps.append(1), read(*given))[1])
    assert written(ready) == alone("llama") and len(calls) == len(steps) > 20


@torch.inference_mode()
@pytest.mark.parametrize("packed", [None, "int8"])
def test_the_session_says_what_ran_and_counts_its_bytes(packed, tmp_path):
    """A processor keeps keys and values of 32 bits whatever the weights are; nothing that was asked for is missing."""
    opts = {"native_step": {}, "continuous_batching": {"slots": 2}, "precision": {"dtype": "bfloat16"}}
    opts |= {"packed_weights": {"kind": packed}} if packed else {}
    plan, session = plan_for(Lane(opts=opts), str(tiny_folder("llama", tmp_path)), machine()), ModuleSession()
    workload = Workload(prompts=("abcabc", "The lamp", "x"), max_new_tokens=6)
    session.prepare(plan, workload, lambda event: None)
    session.run(plan, workload, lambda event: None)
    found = session.effective()
    assert plan.unmet(found) == [] and plan.cache == "dynamic" and not plan.graph
    assert found["native"] and found["cache"] == "packed slots"
    assert found["continuous"] == {**found["continuous"], "kind": "slots", "slots": 2, "admitted": 3}
    assert (found["quantization"] or {}).get("kind") == packed
    slots = session.stepper.slots
    each = session.native.itemsize
    assert each == 4 or machine().gpus
    assert session.memory()["kv"] == 2 * slots.length * session.architecture.kv_bytes_per_token(each)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_plan_with_both_keeps_the_slots_and_no_step_feeds_itself(device):
    """The host says before each step who takes part."""
    plan = Plan("transformers", "m", device=device)
    both = ContinuousBatching(), NativeStep()
    for one in both:
        one.apply(plan)
    assert [one.settle(plan) for one in both] == [None, None]
    assert plan.native and plan.continuous and not plan.graph and plan.cache == "dynamic"


@pytest.mark.parametrize(("device", "taken"), [("cpu", 128), ("cuda", 512)])
def test_how_much_a_step_reads_is_the_devices_unless_chosen(device, taken):
    for chosen, wanted in ((ContinuousBatching(), taken), (ContinuousBatching(chunk=48), 48)):
        for backend in ("transformers", "generate"):
            plan = Plan(backend, "m", device=device)
            chosen.apply(plan)
            assert plan.continuous["chunk"] == plan.expected["continuous.chunk"] == wanted
