"""The bargain: what the compared lanes cost beside their speed, in memory and in quality, a line for each."""

from typing import Any

DASH = "–"
PART = "text"
"""Quality is that of the page of English, which every lossy lane reads: a run's own prompts are too short to count."""


def bargain(result: dict[str, Any] | None) -> list[str]:
    """A line for each lane after the first that was measured; empty where there is nothing to compare."""
    lanes = [lane for lane in (result or {}).get("lanes", ()) if lane["rounds"]]
    if len(lanes) < 2 or lanes[0] is not result["lanes"][0]:
        return []
    return [f"Lane {lane['name']}: {_memory(lane, lanes[0])}; {_text(lane, lanes[0])}" for lane in lanes[1:]]


def _memory(lane: dict[str, Any], first: dict[str, Any]) -> str:
    """Peak against peak."""
    mine, other = (one["memory"].get("peak_bytes") for one in (lane, first))
    return f"{mine / other:.2f}× the memory" if mine and other else f"memory {DASH}"


def _text(lane: dict[str, Any], first: dict[str, Any]) -> str:
    """How often the likeliest next token is not that of the unquantized model; of a lossless lane what it wrote."""
    mine, other = _other(lane), _other(first)
    if not lane.get("quality"):
        same = lane["equality"]["identical"]
        return {True: "the same text", False: "another text", None: f"text {DASH}"}[same]
    if mine is None:
        return f"quality {DASH}"
    against = f", of lane {first['name']} {_percent(other)}" if other is not None else ""
    return f"another next token at {_percent(mine)} of the places{against}"


def _other(lane: dict[str, Any]) -> float | None:
    read = (lane.get("quality") or {}).get(PART)
    return None if not read or read.get("top1") is None else 1 - read["top1"]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 or not share else f"{100 * share:.1f} %"
