"""The memory of each lane over its typical turn, stacked by what holds it, with what was predicted."""

from typing import Any

from engine.measure.memory_parts import PARTS

TITLES = {
    "weights": "Weights",
    "kv": "KV cache",
    "activations": "Activations and workspace",
    "slack": "Allocator slack",
    "graphs": "CUDA graphs",
    "other": "Program and libraries",
}

ALIKE = 0.01
"""Totals that differ by less are called equal."""


def of(result: dict[str, Any]) -> dict[str, Any] | None:
    """JSON-ready: `parts` from the bottom upwards, and for each lane its peak, its timeline and its prediction.

    Sizes are bytes; `most` is the height that all lanes share. None where no lane knows its parts.
    """
    lanes = [_lane(lane["memory"]) for lane in result["lanes"]]
    known = [lane for lane in lanes if lane]
    if not known:
        return None
    held = [name for name in PARTS if any(lane["peak"][name] for lane in known)]
    return {
        "parts": [{"name": name, "title": TITLES[name], "tip": PARTS[name]} for name in held],
        "most": max(max(lane["total"], lane["predicted"] or 0) for lane in known),
        "longest": max(lane["seconds"][-1] for lane in known),
        "lanes": lanes,
        "sentence": _sentence([lane["name"] for lane in result["lanes"]], lanes),
    }


def _lane(memory: dict[str, Any]) -> dict[str, Any] | None:
    peak, timeline = memory.get("parts"), memory.get("timeline")
    if not peak or not timeline:
        return None
    predicted = memory.get("predicted")
    return {
        "peak": peak,
        "total": sum(peak.values()),
        "seconds": timeline["seconds"],
        "held": {name: timeline[name] for name in PARTS},
        "predicted": sum(filter(None, predicted.values())) if predicted else None,
    }


def _sentence(names: list[str], lanes: list[dict[str, Any] | None]) -> str:
    """The first lane's peak and its largest part, and where the others differ most."""
    known = [(name, lane) for name, lane in zip(names, lanes, strict=True) if lane]
    (name, first), others = known[0], known[1:]
    largest = max(PARTS, key=lambda part: first["peak"][part])
    share = first["peak"][largest] / first["total"]
    said = f"At its peak lane {name} holds {_size(first['total'])}, {share:.0%} of it {TITLES[largest].lower()}."
    for other, lane in others:
        if abs(lane["total"] - first["total"]) < ALIKE * first["total"]:
            said += f" Lane {other} holds as much."
            continue
        part = max(PARTS, key=lambda one: abs(lane["peak"][one] - first["peak"][one]))
        change, all_in_all = lane["peak"][part] - first["peak"][part], lane["total"] - first["total"]
        said += f" Lane {other} holds {_size(abs(all_in_all))} {'less' if all_in_all < 0 else 'more'}"
        said += f", mostly in {TITLES[part].lower()} ({'−' if change < 0 else '+'}{_size(abs(change))})."
    return said


def _size(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
