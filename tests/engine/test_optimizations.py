"""The contract that every file of optimizations/ signs by existing."""

import itertools
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

from engine.backends import Session
from engine.decode.generate import GenerateSession
from engine.decode.modules import ModuleSession
from engine.event import Step
from engine.measure.machine import machine
from engine.refusal import Refusal
from engine.registry import GROUPS, backends, optimizations
from engine.spec import Experiment, Lane, Workload, plan_for

PROMPTS = ("abcabcabcabcab", "The lamp is lit. The lamp is", "x")
KEPT: dict[tuple, Session] = {}
"""The newest session: lanes that load the same take turns in it, as they do in a warm worker."""

SESSIONS = {"transformers": ModuleSession, "generate": GenerateSession}


def configurations() -> list[tuple[str, dict]]:
    """Every optimization with its defaults, and once with each choice of a knob that has choices."""
    found = []
    for name, part in optimizations().items():
        found.append((name, {}))
        for knob, field in part.model_fields.items():
            if get_origin(field.annotation) is Literal:
                choices = get_args(field.annotation)
                found += [(name, {knob: choice}) for choice in choices if choice != field.default]
    return found


def ids(case: tuple[str, dict]) -> str:
    return "-".join([case[0], *(str(value) for value in case[1].values())])


def generate(model: Path, lane: Lane, tokens: int = 24, prompts: tuple[str, ...] = PROMPTS) -> dict[int, list[int]]:
    """Prepare and run one lane in this process; the tokens of every request."""
    plan = plan_for(lane, str(model), machine())
    session = KEPT.pop((plan.backend, plan.lease()), None) or SESSIONS[plan.backend]()
    KEPT.clear()
    KEPT[plan.backend, plan.lease()] = session
    workload = Workload(prompts=prompts, max_new_tokens=tokens)
    made: dict[int, list[int]] = {}

    def emit(event) -> None:
        for request, new in zip(event.requests, event.tokens, strict=True) if isinstance(event, Step) else ():
            made.setdefault(request, []).extend(new)

    session.prepare(plan, workload, lambda event: None)
    session.run(plan, workload, emit)
    return made


@pytest.fixture(scope="module")
def plain(tiny_model) -> dict[int, list[int]]:
    return generate(tiny_model, Lane())


@pytest.mark.parametrize("name", optimizations())
def test_it_explains_itself(name):
    part = optimizations()[name]
    words = len(part.lesson().split())
    assert 20 <= words <= 120, f"the lesson of {name} has {words} words"
    assert "Source" in part.lesson()
    assert part.headline().endswith(".")
    assert part.group in GROUPS and part.title
    assert set(part.reasons) <= {"faster", "slower", "same"}
    assert part().badge()
    for knob, field in part.model_fields.items():
        assert field.description and field.title, f"{name}.{knob} says nothing about itself"
        bounded = {type(bound).__name__ for bound in field.metadata} >= {"Ge", "Le"}
        assert bounded or get_origin(field.annotation) is Literal or field.annotation is bool, f"{name}.{knob}"


@pytest.mark.parametrize("name", optimizations())
def test_it_is_supported_somewhere_and_says_why_not_elsewhere(name):
    part = optimizations()[name]
    assert any(part().supports(backend) for backend in backends())
    sentence = part.unavailable(machine())
    assert sentence is None or sentence.endswith(".")


@pytest.mark.parametrize("case", configurations(), ids=ids)
def test_a_lane_with_it_is_the_same_after_json(case):
    name, knobs = case
    data = {"workload": {"prompts": ["x"]}, "lanes": {"A": {"opts": {name: knobs}}}}
    experiment = Experiment.read(data)
    assert Experiment.read(experiment.to_dict()) == experiment


@pytest.mark.parametrize("backend", SESSIONS)
@pytest.mark.parametrize("case", configurations(), ids=ids)
def test_it_runs_and_a_lossless_one_changes_no_token(case, backend, tiny_model, plain):
    name, knobs = case
    lane = Lane(backend=backend, opts={name: knobs})
    try:
        plan_for(lane, str(tiny_model), machine())
    except Refusal as refusal:
        assert refusal.why.endswith(".")
        return
    made = generate(tiny_model, lane)
    assert {request: len(tokens) for request, tokens in made.items()} == {0: 24, 1: 24, 2: 24}
    if optimizations()[name].lossless:
        assert made == plain


def test_pairs_that_are_allowed_run_and_stay_lossless(tiny_model, plain):
    """Every two optimizations together, but for the compiled step, which takes a minute for each pair."""
    lossless = [case for case in configurations() if optimizations()[case[0]].lossless]
    lossless = [case for case in lossless if case[0] != "torch_compile"]
    for (one, knobs), (other, more) in itertools.combinations(lossless, 2):
        if one == other:
            continue
        lane = Lane(opts={one: knobs, other: more})
        try:
            plan_for(lane, str(tiny_model), machine())
        except Refusal:
            continue
        assert generate(tiny_model, lane) == plain, (one, knobs, other, more)


@pytest.mark.model
@pytest.mark.parametrize("backend", SESSIONS)
@pytest.mark.parametrize(
    "opts",
    [{}, {"kv_cache": {"kind": "static"}}, {"prompt_lookup": {}}, {"batching": {"size": 3}},
     {"kv_cache": {"kind": "off"}}, {"attention": {"kernel": "eager"}}, {"threads": {"count": 1}},
     {"kv_cache": {"kind": "static"}, "prompt_lookup": {}}],
    ids=lambda opts: "+".join(opts) or "plain",
)  # fmt: skip
def test_the_embedded_model_writes_the_same_tokens(opts, backend, embedded_tokens):
    lane = Lane(backend=backend, opts=opts)
    try:
        plan_for(lane, "smollm2-135m", machine())
    except Refusal:
        return
    assert generate("smollm2-135m", lane, 16, EMBEDDED_PROMPTS) == embedded_tokens


EMBEDDED_PROMPTS = (
    "Why is the sky blue?",
    "Say the word lamp three times.",
    "Count from one to ten: one, two, three,",
)


@pytest.fixture(scope="module")
def embedded_tokens() -> dict[int, list[int]]:
    """What transformers' own generate writes."""
    return generate("smollm2-135m", Lane(backend="generate"), 16, EMBEDDED_PROMPTS)


def test_sampling_with_one_seed_is_the_same_twice(tiny_model):
    def sampled(seed: int) -> list[int]:
        plan = plan_for(Lane(), str(tiny_model), machine())
        session, made = ModuleSession(), []
        workload = Workload(prompts=("abc",), max_new_tokens=16, temperature=1.0, seed=seed)
        session.prepare(plan, workload, lambda event: None)
        session.run(plan, workload, lambda event: made.extend(event.tokens[0]) if isinstance(event, Step) else None)
        return made

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)


def test_a_request_may_end_before_its_length(tiny_model):
    """Without a fixed length the end mark ends a request, in both backends at the same token."""
    ends = []
    for backend in SESSIONS:
        plan = plan_for(Lane(backend=backend), str(tiny_model), machine())
        session, made = SESSIONS[backend](), []
        free = Workload(prompts=("abcabc",), max_new_tokens=24)
        session.prepare(plan, free, lambda event: None)
        collect = lambda event, made=made: made.extend(event.tokens[0]) if isinstance(event, Step) else None  # noqa: E731
        session.run(plan, free, collect)
        session.model.generation_config.eos_token_id = made[5]
        made.clear()
        session.run(plan, Workload(prompts=("abcabc",), max_new_tokens=24, fixed_length=False), collect)
        ends.append(list(made))
    assert ends[0] == ends[1]
    assert len(ends[0]) <= 6
