"""Roofline: what a lane's phases must take at least on this machine, and how near the measured medians come."""

from dataclasses import dataclass
from typing import Any, Literal

from engine.measure.roofs import Roof
from engine.measure.work import Work

Limit = Literal["memory", "compute", "overhead"]


@dataclass(frozen=True)
class Bound:
    """The least seconds that the memory and the arithmetic units need for some work, and the host to start it.

    Work is predicted to take the longer of the first two: both go on at once. What the host needs is no ceiling of
    the machine, since fewer launches would lift it; where it is the longest, it is what limits. None is unknown.
    Source: Williams, Waterman and Patterson, Roofline, CACM 2009, doi:10.1145/1498765.1498785.
    """

    memory_s: float | None
    compute_s: float | None
    overhead_s: float | None

    @property
    def seconds(self) -> float | None:
        return max((s for s in (self.memory_s, self.compute_s) if s is not None), default=None)

    @property
    def limit(self) -> Limit | None:
        times = {"memory": self.memory_s, "compute": self.compute_s, "overhead": self.overhead_s}
        known = {name: seconds for name, seconds in times.items() if seconds is not None}
        return max(known, key=known.get) if self.seconds is not None else None


def bound(work: Work, roof: Roof, arithmetic: str, launches: float | None = None) -> Bound:
    """The three times of one pass. `launches` is how often the host starts something for it."""
    roof = roof.at(work.moved)
    rate = roof.rates.get(arithmetic)
    return Bound(
        work.moved / roof.bandwidth if roof.bandwidth else None,
        work.operations / rate if rate else None,
        launches * roof.small if launches and roof.small else None,
    )


def entry(
    work: Work, roof: Roof, arithmetic: str, tokens: float = 1.0, measured_ms: float | None = None,
    launches: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One phase as the result has it, JSON-ready.

    `predicted_ms` is the least time of what `measured_ms` measures: the first token, or a token of one request,
    of which a pass gives `tokens`. `share` is predicted / measured: 1 is the ceiling. `memory_ms`, `compute_ms` and
    `overhead_ms` are those of the same. `allowed` and `reached` are bytes and operations a second, at best and as
    measured.
    """
    roof = roof.at(work.moved)
    limits = bound(work, roof, arithmetic, launches)
    predicted = _ms(limits.seconds, tokens)
    took = measured_ms / 1000 * tokens if measured_ms else None
    return {
        **work.to_dict(),
        "arithmetic": arithmetic,
        "bandwidth": roof.bandwidth,
        "rate": roof.rates.get(arithmetic),
        "memory_ms": _ms(limits.memory_s, tokens),
        "compute_ms": _ms(limits.compute_s, tokens),
        "overhead_ms": _ms(limits.overhead_s, tokens),
        "predicted_ms": predicted,
        "bound": limits.limit,
        "measured_ms": measured_ms,
        "share": predicted / measured_ms if predicted and measured_ms else None,
        "allowed": _speeds(work, limits.seconds),
        "reached": _speeds(work, took),
    }


def _speeds(work: Work, seconds: float | None) -> dict[str, float] | None:
    return {"bytes": work.moved / seconds, "operations": work.operations / seconds} if seconds else None


def _ms(seconds: float | None, tokens: float) -> float | None:
    return None if seconds is None else seconds * 1000 / tokens
