"""The roofline picture: what the machine allows for each lane's phases, and where they came out, ready to be drawn."""

from collections.abc import Sequence
from typing import Any

PHASES = {"prefill": "reading the prompt", "decode": "writing a token"}
LIMITS = {
    "memory": "the memory's bandwidth",
    "compute": "arithmetic",
    "overhead": "starting operators, which the host does one by one",
}
ALIKE = 0.9
"""Slopes whose ratio is above this lie on each other."""


def of(result: dict[str, Any]) -> dict[str, Any] | None:
    """The picture of a run."""
    lanes = result["lanes"]
    return picture([lane["name"] for lane in lanes], [lane.get("ceiling") for lane in lanes])


def picture(names: Sequence[str], ceilings: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Slopes, roofs and points; None where no ceiling is known.

    `ceilings` holds each lane's `ceiling`. Places are operations a byte across and operations a second upwards.
    """
    known = [(number, phase, one) for number, both in enumerate(ceilings) for phase, one in _phases(both)]
    if not known:
        return None
    entries = [one for _, _, one in known]
    return {
        "slopes": _apart({one["bandwidth"] for one in entries if one["bandwidth"]}),
        "roofs": sorted({(one["arithmetic"], one["rate"]) for one in entries if one["rate"]}),
        "points": [point for number, phase, one in known for point in _points(number, names[number], phase, one)],
        "sentence": _sentence(names, ceilings),
    }


def _apart(bandwidths: set[float]) -> list[float]:
    """Those that can be told apart in the picture: little data has a higher one than much, often by next to nothing."""
    kept: list[float] = []
    for bandwidth in sorted(bandwidths, reverse=True):
        if not kept or bandwidth < ALIKE * kept[-1]:
            kept.append(bandwidth)
    return kept[::-1]


def _phases(both: dict[str, Any] | None) -> list[tuple[str, dict[str, Any]]]:
    return [(phase, both[phase]) for phase in PHASES if both and both.get(phase) and both[phase]["predicted_ms"]]


def _points(number: int, name: str, phase: str, one: dict[str, Any]) -> list[dict[str, Any]]:
    place = {"lane": number, "phase": phase, "x": one["intensity"]}
    title = f"Lane {name}, {PHASES[phase]}"
    tip = f"{title}: {one['predicted_ms']:.3g} ms at best; {LIMITS[one['bound']]} limits it"
    points = [{**place, "kind": "predicted", "y": one["allowed"]["operations"], "tip": tip}]
    if one["share"]:
        tip = f"{title}: {one['measured_ms']:.3g} ms measured, {one['share']:.0%} of what the machine allows"
        measured = {"kind": "measured", "y": one["reached"]["operations"], "share": one["share"], "tip": tip}
        points.append({**place, **measured})
    return points


def _sentence(names: Sequence[str], ceilings: Sequence[dict[str, Any] | None]) -> str:
    """How near writing a token came, or while nothing has run the best that can be had, lane by lane."""
    known = [
        (name, both["decode"]) for name, both in zip(names, ceilings, strict=True) if dict(_phases(both)).get("decode")
    ]
    if not known:
        return ""
    if any(one["share"] for _, one in known):
        said = [f"lane {name} reached {one['share']:.0%}" for name, one in known if one["share"]]
        return f"Writing a token, {', '.join(said)} of what this machine allows."
    said = [f"lane {name} {one['predicted_ms']:.3g} ms ({one['bound']})" for name, one in known]
    return f"A token takes at least: {', '.join(said)}."
