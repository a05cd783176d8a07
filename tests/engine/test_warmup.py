"""Warm-ups: at least two, until two in a row agree, never endless, and counted."""

from dataclasses import replace

import pytest

from engine.decode import modules
from engine.decode.drafting import Drafting
from engine.decode.warmup import AGREE, LEAST, MOST, account, apart, warm_up
from engine.event import Phase
from engine.measure.machine import machine
from engine.spec import Lane, Workload, plan_for


@pytest.mark.parametrize(("last", "runs"), [(0.0, LEAST + 1), (0.3, MOST)], ids=["settles", "never settles"])
def test_turns_are_repeated_until_two_agree(last, runs):
    """The first turn is slow; then all are alike, or each is longer than the one before."""
    now, lengths = [0.0], iter([0.2, 0.05, 0.05 + last, 0.05 + 3 * last, 0.05 + 9 * last])

    def turn() -> None:
        now[0] += next(lengths)

    took = warm_up(turn, clock=lambda: now[0])
    assert len(took) == runs and took[0] == pytest.approx(0.2)
    assert (apart(took) < AGREE) == (runs < MOST)


def test_all_shapes_are_counted_and_the_worst_is_told():
    found = account([[2.0, 1.0, 1.01], [1.0, 1.1, 1.2, 1.5]])
    assert found == {"runs": 7, "apart": pytest.approx(0.25), "agreed": False}
    assert account([[1.0, 1.0]])["agreed"] is True and account([]) is None


def test_processes_that_take_turns_together_all_take_as_many():
    """Each has its own clock: however their times fall, the number of turns may not depend on it."""
    assert len(warm_up(lambda: None, together=True, clock=iter(range(100)).__next__)) == MOST
    assert len(warm_up(lambda: None, clock=iter(range(100)).__next__)) < MOST


@pytest.mark.parametrize(("opts", "wanted"), [
    ({}, ["warmup", "profile"]),
    ({"torch_compile": {}}, ["compile", "warmup", "profile"]),
    ({"torch_compile": {}, "prompt_lookup": {}}, ["compile", "warmup", "compile", "widths", "profile"]),
])  # fmt: skip
def test_what_is_compiled_is_told_as_compiling(opts, wanted, tiny_model, monkeypatch):
    """A step that checks guesses is compiled for two widths: half a minute each, and neither is a warm-up."""
    monkeypatch.setattr(modules, "compile_step", lambda model, plan: model.forward)
    told = []
    rehearse = Drafting.rehearse
    monkeypatch.setattr(Drafting, "rehearse", lambda *parts: told.append("widths") or rehearse(*parts))
    plan = plan_for(Lane(opts=opts), str(tiny_model), replace(machine(), compiler="g++", gpus=()))
    session, workload = modules.ModuleSession(), Workload(prompts=("The lamp is lit. The lamp",), max_new_tokens=6)
    session.prepare(plan, workload, lambda event: told.append(event.name) if isinstance(event, Phase) else None)
    assert [name for name in told if name not in ("fetch", "load")] == wanted
