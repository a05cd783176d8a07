"""Occupancy: how full the batches of a run were, from its own requests: prompts, padding, and places left empty."""

from collections.abc import Iterable
from statistics import fmean
from typing import Any

from engine.measure.timeline import RequestLine, Timeline


def occupancy(lines: Iterable[Timeline]) -> dict[str, Any] | None:
    """Means over some turns; None without a request that was answered.

    `prompt_tokens` and `output_tokens` of a request, `requests` of a turn; of the static batches (requests that got
    their first token in one step) `padding`, the share of places in the prompts that shorter ones left empty, and
    `idle`, the share of places in the steps whose request had its answer already. Both are None where no two
    requests entered together. Source: Orca, OSDI 2022, section 2.
    """
    lines = [line for line in lines if any(one.arrivals for one in line.requests.values())]
    if not lines:
        return None
    answered = [one for line in lines for one in line.requests.values() if one.arrivals]
    shared = [batch for line in lines for batch in _batches(line) if len(batch) > 1]
    return {
        "requests": fmean(len(line.requests) for line in lines),
        "prompt_tokens": fmean(one.prompt_tokens for one in answered),
        "output_tokens": fmean(len(one.tokens) for one in answered),
        "padding": _empty(shared, lambda one: one.prompt_tokens),
        "idle": _empty(shared, lambda one: len(one.steps)),
    }


def _batches(line: Timeline) -> Iterable[list[RequestLine]]:
    together: dict[float, list[RequestLine]] = {}
    for one in line.requests.values():
        if one.steps:
            together.setdefault(one.steps[0], []).append(one)
    return together.values()


def _empty(batches: list[list[RequestLine]], size: Any) -> float | None:
    """Of rectangles as wide as their longest row, the share that shorter rows leave empty."""
    whole = sum(max(map(size, batch)) * len(batch) for batch in batches)
    return 1 - sum(sum(map(size, batch)) for batch in batches) / whole if whole else None
