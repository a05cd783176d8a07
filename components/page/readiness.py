"""Readiness: what a lane says of itself before it runs: its number format, and why it cannot run."""

from collections.abc import Mapping
from typing import Any

from components.lanes import Values, lane
from engine.measure.machine import machine
from engine.refusal import Refusal
from engine.registry import optimizations
from engine.spec import Lane, plan_for
from engine.ways import taken


class Unready(Refusal):
    """Lanes that cannot run here; what it says is out of date once they can."""


def problem(shown: Lane, model: str) -> str:
    """Why this lane cannot run here, as a sentence; empty where it can."""
    try:
        plan_for(shown, model, machine())
    except Refusal as refusal:
        return str(refusal)
    return ""


def checked(rows: list[Values], model: str) -> tuple[list[str], dict[str, Lane]]:
    """For each lane why it cannot run, or nothing; and those lanes by name that can at least be read."""
    notes, lanes = [], {}
    for row in rows:
        try:
            lanes[str(row["name"])] = one = lane(row)
            notes.append(problem(one, model))
        except Refusal as refusal:
            notes.append(str(refusal))
    return notes, lanes


def unready(names: list[str], problems: list[str]) -> str:
    """Which lanes cannot run and why, in one text; empty where all can."""
    return " ".join(f"Lane {name} cannot run: {text}" for name, text in zip(names, problems, strict=True) if text)


def missing(shown: Lane | None, model: str) -> list[tuple[str, str]]:
    """Names and titles of what is needed by something in the lane and off, where switching it on makes the lane run."""
    if shown is None:
        return []
    names = dict.fromkeys(name for opt in shown.opts.values() for name in opt.needs if name not in shown.opts)
    cured = shown.model_copy(update={"opts": {**shown.opts, **{name: optimizations()[name]() for name in names}}})
    return [(name, optimizations()[name].title) for name in names] if names and not problem(cured, model) else []


def number_format(shown: Lane, model: str, effective: Mapping[str, Any] | None = None) -> str:
    """The number format that a lane leaves to choice: as it really ran, where it has, else as it would run here."""
    if not shown.backend.needs_model:
        return ""
    try:
        found = effective.get("dtype") if effective else plan_for(shown, model, machine()).dtype
    except Refusal:
        return ""
    return f"{found} (auto)" if found and found not in {opt.badge() for opt in shown.opts.values()} else ""


def rung(shown: Lane, model: str, effective: Mapping[str, Any] | None = None) -> str:
    """What a lane that leaves its step to choice took, where it has run, else what it would take here."""
    try:
        found = taken(effective.get("notes", ()) if effective else plan_for(shown, model, machine()).notes)
    except Refusal:
        return ""
    return f"{found} (auto)" if found else ""
