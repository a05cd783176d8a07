"""Pareto: what a configuration is judged by, and which configurations no other one beats in everything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engine.measure.metrics import METRICS
from engine.spec import Lane

EPSILON = 1e-12


@dataclass(frozen=True)
class Axis:
    """One thing to judge a configuration by: its `unit`, and whether more of it is `better`."""

    name: str
    title: str
    unit: str
    better: Literal["higher", "lower"]
    definition: str


PEAK = "Most memory that the lane's process (on a GPU: torch) held during its rounds."
WEIGHTS = "Bytes of the model's weights as they lie in memory."
KL = "How far the next-token probabilities move from the unquantized model's, mean over a text, in nats. 0: not at all."
AXES: dict[str, Axis] = {
    **{one.name: Axis(one.name, one.title, one.unit, one.better, one.definition) for one in METRICS.values()},
    "peak": Axis("peak", "Peak memory", "bytes", "lower", PEAK),
    "weights": Axis("weights", "Weights", "bytes", "lower", WEIGHTS),
    "kl": Axis("kl", "KL divergence", "nats", "lower", KL),
}
"""Everything that a sweep can be drawn over and a search can be limited in, by name."""


def figures(lane: Mapping[str, Any]) -> dict[str, float | None]:
    """The value of every axis for one lane of a run's result; None where it is unknown."""
    memory, metrics = lane["memory"], lane["metrics"]
    own = {"peak": memory.get("peak_bytes"), "weights": memory.get("weights_bytes"), "kl": divergence(lane)[0]}
    return {name: own[name] if name in own else metrics.get(name) for name in AXES}


def divergence(lane: Mapping[str, Any]) -> tuple[float | None, Literal["measured", "stated"]]:
    """The lane's mean KL divergence in nats, and whether it was measured in this run.

    What was not measured is what its optimizations state as the most they may cost, added up.
    """
    measured = ((lane.get("quality") or {}).get("text") or {}).get("kl_mean")
    return (measured, "measured") if measured is not None else (stated(Lane.model_validate(lane["lane"])), "stated")


def stated(lane: Lane) -> float | None:
    """The sum of what a lane's optimizations may cost by their own statement, in nats; None where one states nothing.

    The statements are about the embedded model: see Optimization.expected_loss. None also where no model runs.
    """
    if not lane.backend.needs_model:
        return None
    losses = [opt.expected_loss() for opt in lane.opts.values() if not opt.lossless]
    return None if None in losses else sum(mean for mean, _ in losses)


def front(points: Sequence[Mapping[str, float | None]], axes: Sequence[str]) -> list[bool]:
    """For each point whether no other one is at least as good on all `axes` and better on one.

    A point that lacks a value on one of the axes is not on the front. Source: Pareto efficiency.
    """
    rows = [_costs(point, axes) for point in points]
    known = [row for row in rows if row is not None]
    return [row is not None and not any(_dominates(other, row) for other in known) for row in rows]


def _costs(point: Mapping[str, float | None], axes: Sequence[str]) -> list[float] | None:
    """Values of which less is better; None where one is unknown."""
    values = [point.get(name) for name in axes]
    if any(value is None for value in values):
        return None
    return [-value if AXES[name].better == "higher" else value for name, value in zip(axes, values, strict=True)]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a <= b + EPSILON for a, b in pairs) and any(a < b - EPSILON for a, b in pairs)
