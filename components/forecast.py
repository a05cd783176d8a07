"""Forecasts: what lanes will take and do at best, before they run: a line beside each, and their roofline."""

from collections.abc import Sequence
from html import escape
from itertools import starmap
from typing import Any

from engine.measure.estimate import estimate
from engine.measure.fit import size, spans
from engine.measure.machine import machine
from engine.measure.memory import held
from engine.measure.verdict import figure
from engine.refusal import Refusal
from engine.spec import Lane, Workload, plan_for

TIP = (
    "Predicted from the model's shape. Memory: weights, keys and values, activations and the engine itself. Speed: "
    "what this machine's memory and arithmetic were measured to allow; a run says how near it comes."
)


def forecasts(lanes: dict[str, Lane], model: str, workload: Workload | None) -> dict[str, dict[str, Any] | None]:
    """Each lane's estimate; None where its model's shape is not known yet, or it cannot run."""
    idle = held()
    return {name: _forecast(lane, model, workload, idle) if workload else None for name, lane in lanes.items()}


def _forecast(lane: Lane, model: str, workload: Workload, idle: float) -> dict[str, Any] | None:
    try:
        plan = plan_for(lane, model, machine())
    except Refusal:
        return None
    return estimate(plan, plan.shape, workload, idle) if plan.shape else None


def note(problem: str, told: dict[str, Any] | None, missing: Sequence[tuple[str, str]] = ()) -> str:
    """What stands beside a lane: why it cannot run, or what it will take, as HTML.

    `missing` are names and titles of what would make it run: each is a button that static/rail.js listens to.
    """
    if problem:
        return f"<p role='alert'>{escape(problem)}{''.join(starmap(_remedy, missing))}</p>"
    if not told:
        return ""
    fitted, rate = told["fit"], told["tok_per_s"]
    speed = f"; at most {figure(rate)} tok/s" + ", with every guess right" * told["guesses"] if rate else ""
    there = size(fitted["room"])
    if not fitted["fits"]:
        return f"<p role='alert'>Needs about {spans(fitted)} of memory; {there} are free.</p>"
    needs = f"Needs about {spans(fitted)}, of {there} that are free{speed}."
    return f"<p class='told' title='{escape(TIP)}'>{needs}</p>"


def _remedy(name: str, title: str) -> str:
    label = f"Switch {title.lower()} on"
    return f" <button type='button' data-switch='{escape(name)}' aria-label='{escape(label)}'>Switch on</button>"
