"""Beginnings that prompts share are read once in a turn, and what was reused is told and counted."""

from typing import Any

import pytest

from engine.decode.modules import ModuleSession
from engine.decode.prefix import MOST, common
from engine.event import Admitted
from engine.measure.machine import machine
from engine.measure.metrics import METRICS
from engine.measure.timeline import Timeline
from engine.spec import Lane, Workload, plan_for
from tests.engine.contract import full
from tests.engine.tiny_models import tiny

SYSTEM = "You keep the lamp of the lighthouse. Answer in one short line."
PROMPTS = ("Is it lit?", "Who is the keeper of it?", "Why?")
SHARED = len(SYSTEM) + 2
"""Bytes of the system prompt and the empty line after it: a token each."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny("llama", tmp_path_factory.mktemp("prefix"))


@pytest.fixture(scope="module")
def session() -> ModuleSession:
    return ModuleSession()


def turn(session: ModuleSession, folder: Any, opts: dict[str, Any], **workload: Any) -> Timeline:
    """One turn with these optimizations; its timeline."""
    plan = plan_for(full(Lane(opts=opts)), str(folder), machine())
    asked = Workload(**{"prompts": PROMPTS, "system": SYSTEM, "max_new_tokens": 8, **workload})
    line = Timeline()
    session.prepare(plan, asked, lambda event: None)
    session.run(plan, asked, line.see)
    assert not plan.unmet(session.effective())
    return line


def written(line: Timeline) -> list[list[int]]:
    return [request.tokens for _, request in sorted(line.requests.items())]


def reused(line: Timeline) -> list[int]:
    return [request.reused for _, request in sorted(line.requests.items())]


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_the_first_request_reads_the_system_prompt_for_the_others(kind, session, folder):
    plain = turn(session, folder, {})
    line = turn(session, folder, {"prefix_reuse": {}, "kv_cache": {"kind": kind}})
    assert written(line) == written(plain)
    assert reused(line) == [0, SHARED, SHARED]
    tokens = sum(SHARED + len(prompt) for prompt in PROMPTS)
    assert METRICS["reused_percent"].read(line) == pytest.approx(100 * 2 * SHARED / tokens)
    assert METRICS["reused_percent"].read(plain) is None
    found = session.effective()["prefix"]
    assert found["hit_rate"] == pytest.approx(2 * SHARED / tokens)
    assert session.memory()["kv"] >= found["bytes"] > 0


def test_every_turn_starts_with_nothing_kept(session, folder):
    lines = [turn(session, folder, {"prefix_reuse": {}}) for _ in range(2)]
    assert reused(lines[0]) == reused(lines[1]) == [0, SHARED, SHARED]


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_rows_of_a_batch_share_a_beginning_though_their_lengths_differ(kind, session, folder):
    opts = {"batching": {"size": 2}, "kv_cache": {"kind": kind}}
    prompts = (*PROMPTS, "Is it lit, and for how long will it be?")
    plain = turn(session, folder, opts, prompts=prompts)
    line = turn(session, folder, {**opts, "prefix_reuse": {}}, prompts=prompts)
    assert written(line) == written(plain)
    assert reused(line) == [0, SHARED, SHARED, SHARED]


def test_prompts_that_differ_early_reuse_nothing(session, folder):
    prompts = ("A lamp is lit.", "The lamp is lit.", "A lamb is lit.")
    line = turn(session, folder, {"prefix_reuse": {}}, system="", prompts=prompts)
    assert reused(line) == [0, 0, 0]
    line = turn(session, folder, {"prefix_reuse": {"least": 4}}, system="", prompts=prompts)
    assert reused(line) == [0, 0, 5]


def test_the_same_prompt_again_leaves_one_token_to_read(session, folder):
    line = turn(session, folder, {"prefix_reuse": {}}, prompts=("Is it lit?",), requests=3)
    assert reused(line) == [0, *[SHARED + len("Is it lit?") - 1] * 2]
    first, *others = written(line)
    assert others == [first, first]


def test_it_goes_with_guesses_and_with_requests_that_arrive(session, folder):
    plain = turn(session, folder, {})
    assert written(turn(session, folder, {"prefix_reuse": {}, "prompt_lookup": {}})) == written(plain)
    line = turn(session, folder, {"prefix_reuse": {}}, arrivals="at once")
    assert written(line) == written(plain) and reused(line) == [0, SHARED, SHARED]


def test_only_a_few_beginnings_are_kept(session, folder):
    prompts = tuple(f"{letter * 20}?" for letter in "abcdefa")
    line = turn(session, folder, {"prefix_reuse": {}}, system="", prompts=prompts)
    assert session.effective()["prefix"]["beginnings"] == MOST
    assert reused(line) == [0] * 7, "the first one had to go when the fifth came"


def test_each_request_is_told_once_what_it_reused(session, folder):
    events = []
    plan = plan_for(full(Lane(opts={"prefix_reuse": {}})), str(folder), machine())
    session.run(plan, Workload(prompts=PROMPTS, system=SYSTEM, max_new_tokens=4), events.append)
    told = [event for event in events if isinstance(event, Admitted)]
    assert [(event.request, event.reused) for event in told] == [(0, 0), (1, SHARED), (2, SHARED)]


def test_rows_have_a_beginning_in_common():
    assert common([(1, 2, 3, 4), (1, 2, 5, 6)]) == 2
    assert common([(1, 2, 3), (1, 2, 3)]) == 2, "one token is left to read"
    assert common([(1, 2, 3), (1, 2, 3, 4)], own=1) == 3
    assert common([(1,), (1, 2)]) == 0
