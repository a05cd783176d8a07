"""Continuous batching writes, request by request, the tokens of the plain loop."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from engine.decode.arrivals import Arrivals, InTurn
from engine.decode.continuous import Engine, engine
from engine.decode.loop import decode
from engine.decode.paged import pages
from engine.decode.prompts import Batch, pick
from engine.decode.sampling import Sampling
from engine.decode.slots import NAME, Slots
from engine.decode.stepper import Growing
from engine.event import Admitted, Request, Step
from engine.measure.machine import machine
from engine.models import load
from engine.models.architecture import architecture
from engine.models.resolve import resolve
from engine.optimizations.continuous_batching import ContinuousBatching
from engine.plan import Plan
from engine.refusal import Refusal
from engine.spec import Lane, Workload, plan_for
from tests.engine.plans import planned
from tests.engine.tiny import prompts
from tests.engine.tiny_models import DECODERS, WINDOW

GREEDY = Sampling(frozenset(), fixed_length=True)
ASKED = Batch(
    tuple(range(9)),
    prompts(5, 40, 1, 33, 8, 70, 2, 16, 11),
    (12, 3, 20, 7, 1, 12, 9, 16, 5),
)
"""More requests than slots, ragged prompts, prompts longer than a chunk and than a window, different lengths."""
KNOBS = {"slots": 3, "chunk": 16, "memory_mb": 0}


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """Tiny models of random weights; the windows of those that have one are shorter than the prompts."""
    made = {}
    for kind, config in DECODERS.items():
        torch.manual_seed(1)
        made[kind] = transformers.AutoModelForCausalLM.from_config(config()).eval()
    return made


def tokens(events: list) -> dict[int, list[int]]:
    made: dict[int, list[int]] = {}
    for event in events:
        for request, new in zip(event.requests, event.tokens, strict=True) if isinstance(event, Step) else ():
            made.setdefault(request, []).extend(new)
    return made


@torch.inference_mode()
def plain(model: Any, asked: Batch = ASKED, sampling: Sampling = GREEDY) -> dict[int, list[int]]:
    """What the plain loop writes, one request after another."""
    events: list = []
    for place in range(len(asked.requests)):
        decode(Growing(model, [0]), pick(asked, [place]), sampling, events.append)
    return tokens(events)


@torch.inference_mode()
def continuous(
    model: Any, asked: Batch = ASKED, sampling: Sampling = GREEDY, chunk: int = 16
) -> tuple[dict[int, list[int]], Engine]:
    events: list = []
    made = engine(model, asked, {**KNOBS, "chunk": chunk}, 100.0)
    made.run(InTurn(asked, events.append), sampling)
    return tokens(events), made


@pytest.mark.parametrize("chunk", [16, 2048])
@pytest.mark.parametrize("kind", DECODERS)
def test_the_tokens_are_those_of_the_plain_loop(kind, chunk, models):
    found, made = continuous(models[kind], chunk=chunk)
    assert found == plain(models[kind])
    assert {request: len(new) for request, new in found.items()} == dict(
        zip(ASKED.requests, ASKED.lengths, strict=True)
    )
    assert (made.peak, made.admitted, made.slots.rows) == (3, 9, 3) and made.chunks > 9 * (chunk == 16)
    assert models[kind].config._attn_implementation != NAME


def test_windows_are_shorter_than_these_prompts():
    assert max(map(len, ASKED.prompts)) > 2 * WINDOW


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_end_marks_end_a_request_and_free_its_slot(kind, models):
    free = plain(models[kind])
    stop = Sampling(frozenset({free[2][4], free[7][2]}), fixed_length=False)
    expected = plain(models[kind], sampling=stop)
    assert expected != free
    assert continuous(models[kind], sampling=stop)[0] == expected


def test_a_second_turn_over_used_slots_is_like_the_first(models):
    model, events = models["qwen3"], []
    with torch.inference_mode():
        made = engine(model, ASKED, KNOBS, 100.0)
        made.run(InTurn(ASKED, lambda event: None), GREEDY)
        backwards = pick(ASKED, range(8, -1, -1))
        made.run(InTurn(backwards, events.append), GREEDY)
    assert tokens(events) == plain(model)


def test_requests_that_arrive_by_the_clock_are_admitted_once_and_answered(models):
    asked = Workload(prompts=("x",), requests=9, arrivals="poisson", rate=500.0)
    events: list = []
    with torch.inference_mode():
        made = engine(models["llama"], ASKED, KNOBS, 100.0)
        made.run(Arrivals(ASKED, asked, events.append), GREEDY)
    assert tokens(events) == plain(models["llama"])
    for kind in (Request, Admitted):
        assert sorted(event.request for event in events if isinstance(event, kind)) == list(range(9))
    came = {event.request: event.t for event in events if isinstance(event, Request)}
    assert all(event.t >= came[event.request] for event in events if isinstance(event, Admitted))
    assert max(len(event.requests) for event in events if isinstance(event, Step)) <= 3


def test_a_slot_that_keeps_the_previous_requests_keys_is_caught(models, monkeypatch):
    """Sabotage: new keys are not written into a slot that somebody has used."""
    expected, used = plain(models["llama"]), set()

    def stale(self, number, key, value, layer=Slots.layer):
        keys, values = layer(self, number, key, value)
        if number in used:
            return keys.clone(), values
        used.add(number)
        return keys, values

    monkeypatch.setattr(Slots, "layer", stale)
    monkeypatch.setattr("engine.decode.continuous._check_attention", lambda model, prompt: None)
    assert continuous(models["llama"])[0] != expected


def test_a_row_that_does_not_move_with_its_request_is_caught(models, monkeypatch):
    monkeypatch.setattr(Slots, "move", lambda self, source, target, tokens: None)
    assert continuous(models["llama"])[0] != plain(models["llama"])


def test_a_mask_that_is_one_token_late_is_caught(models, monkeypatch):
    from engine.decode import slots

    monkeypatch.setattr(
        slots, "_visible", lambda places, width, window, seen=slots._visible: seen(places - 1, width, window)
    )
    with pytest.raises(Refusal, match="do not follow"):
        continuous(models["llama"])


def test_a_model_whose_attention_goes_its_own_way_is_refused():
    torch.manual_seed(1)
    config = transformers.BloomConfig(vocab_size=257, hidden_size=32, n_layer=2, n_head=4)
    with pytest.raises(Refusal, match="do not follow"):
        continuous(transformers.AutoModelForCausalLM.from_config(config).eval())


def test_memory_that_holds_no_slot_is_refused_and_little_memory_means_few_slots(models):
    length = 128
    with torch.inference_mode():
        two = engine(models["llama"], ASKED, {**KNOBS, "memory_mb": 1}, 1e6 / 2 / length)
        assert two.slots.rows == 2
        with pytest.raises(Refusal, match="A slot of 128 tokens needs 2 MB"):
            engine(models["llama"], ASKED, {**KNOBS, "memory_mb": 1}, 2e6 / length)


def test_positions_that_depend_on_the_whole_length_are_refused_beyond_it():
    torch.manual_seed(1)
    config = DECODERS["llama"]()
    config.rope_parameters = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    config.max_position_embeddings = 64
    with pytest.raises(Refusal, match="Beyond 64 tokens"):
        continuous(transformers.AutoModelForCausalLM.from_config(config).eval())


@pytest.mark.parametrize("kind", ["llama", "gemma3", "gpt2"])
def test_transformers_continuous_batching_writes_the_same_tokens(kind, models):
    asked = Workload(prompts=("x",), requests=9, arrivals="poisson", rate=500.0)
    events: list = []
    with torch.inference_mode():
        made = pages(models[kind], ASKED, KNOBS, 100.0, GREEDY)
        for _ in range(2):
            events.clear()
            made.run(Arrivals(ASKED, asked, events.append))
    assert tokens(events) == plain(models[kind])
    assert made.facts()["kind"] == "pages" and 1 < made.peak <= 3 and made.kv_bytes() > 0
    admitted = {event.request: event.t for event in events if isinstance(event, Admitted)}
    came = {event.request: event.t for event in events if isinstance(event, Request)}
    assert all(admitted[request] >= came[request] for request in range(9))


ENGINES = {
    "slots": lambda model: engine(model, ASKED, KNOBS, 100.0),
    "pages": lambda model: pages(model, ASKED, KNOBS, 100.0, GREEDY),
}


@pytest.mark.parametrize("kind", ENGINES)
def test_a_turn_that_is_stopped_leaves_nothing_to_the_next_one(kind, models):
    class Stopped(Exception):
        pass

    def stop(event: Any) -> None:
        if isinstance(event, Step) and 4 in event.requests:
            raise Stopped

    events: list = []
    with torch.inference_mode():
        made = ENGINES[kind](models["llama"])
        turn = (GREEDY,) if isinstance(made, Engine) else ()
        with pytest.raises(Stopped):
            made.run(InTurn(ASKED, stop), *turn)
        made.run(InTurn(ASKED, events.append), *turn)
    assert tokens(events) == plain(models["llama"])
    assert models["llama"].config._attn_implementation not in (NAME, "paged|eager")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"batch": 4}, "static or continuous"),
        ({"cache": "off"}, "own store"),
        ({"cache": "static"}, "own store"),
        ({"window": {"size": 4}}, "own store"),
        ({"kv_bits": {"keys": 8}}, "own store"),
        ({"prefix": True}, "prefix reuse"),
        ({"speculation": {"kind": "x"}}, "Speculation"),
        ({"compile": "default"}, "another shape"),
        ({"graph": True}, "another shape"),
        ({"replicas": 2}, "one process"),
        ({"attention": "eager"}, "attention to auto"),
    ],
)
def test_what_cannot_go_together_is_refused_in_a_sentence(change, says):
    plan = Plan("transformers", "m", **change)
    sentence = ContinuousBatching().settle(plan)
    assert says in sentence and sentence.endswith(".")
    assert ContinuousBatching().settle(Plan("transformers", "m")) is None


def test_capped_scores_are_kept_by_our_slots_and_refused_where_the_library_leaves_the_cap_out():
    shape = architecture(DECODERS["gemma2"]().to_dict())
    ours, theirs = (Plan(backend, "m", shape=shape, attention="eager") for backend in ("transformers", "generate"))
    assert shape.soft_cap and ContinuousBatching().settle(ours) is None
    assert "leaves out the cap" in ContinuousBatching().settle(theirs)


def test_a_model_that_slots_cannot_serve_is_not_told_to_change_its_attention():
    bloom, mixed = (architecture({"model_type": kind, "hidden_size": 64}) for kind in ("bloom", "granite_swa"))
    for kernel in ("auto", "eager"):
        with pytest.raises(Refusal, match="attention of its own: use static batching"):
            plan_for(Lane(opts={"continuous_batching": {}, "attention": {"kernel": kernel}}), "m", machine(), bloom)
    assert plan_for(Lane(opts={"continuous_batching": {}}), "m", machine(), mixed).attention == "eager"


@pytest.mark.model
def test_the_embedded_model_writes_the_same_tokens(smollm):
    """A few of its own prompts, in float32."""
    model = load.load_model(resolve("smollm2-135m"), smollm, planned())
    asked = replace(pick(ASKED, range(6)), lengths=(8, 3, 10, 7, 1, 8))
    assert continuous(model, asked)[0] == plain(model, asked)
