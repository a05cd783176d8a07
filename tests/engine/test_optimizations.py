"""The contract that every file of optimizations/ signs by existing."""

from typing import Literal, get_origin

import pytest

from components.lessons import lessons
from engine.decode.modules import ModuleSession
from engine.event import Step
from engine.measure.machine import machine
from engine.registry import GROUPS, backends, optimizations
from engine.spec import Experiment, Lane, Workload, plan_for
from tests.engine.contract import PROMPTS, SESSIONS, configurations, generate, ids, settled


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
    assert part.advice(machine()) == "" or part.advice(machine()).endswith(".")
    assert set(part.needs) <= set(optimizations()) and set(part.only) <= set(part.model_fields)
    for knob, field in part.model_fields.items():
        assert field.description and field.title, f"{name}.{knob} says nothing about itself"
        limits = {type(bound).__name__ for bound in field.metadata}
        limits |= {limit for bound in field.metadata for limit in getattr(bound, "__dict__", ())}
        bounded = limits >= ({"MaxLen", "pattern"} if field.annotation is str else {"Ge", "Le"})
        assert bounded or get_origin(field.annotation) is Literal or field.annotation is bool, f"{name}.{knob}"


@pytest.mark.parametrize("name", [name for name, part in optimizations().items() if part.group == "speculation"])
def test_guessing_shows_whether_it_adapts_and_what_sampling_keeps(name):
    part = optimizations()[name]
    assert part(adaptive=True).badge() == f"{part().badge()} adaptive"
    assert "temperature above 0" in part.kept and part.kept in lessons().value


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
@pytest.mark.parametrize("case", [case for case in configurations() if not optimizations()[case[0]].lossless], ids=ids)
def test_a_lossy_one_runs_and_keeps_the_number_of_tokens(case, backend, tiny_model):
    """What lossless ones owe is in test_lossless.py; how much a lossy one may change, in test_quality.py."""
    lane = Lane(backend=backend, opts=dict([case]))
    if settled(lane, tiny_model):
        made = generate(tiny_model, lane, 24, PROMPTS[:6])
        assert {request: len(tokens) for request, tokens in made.items()} == dict.fromkeys(range(6), 24)


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
