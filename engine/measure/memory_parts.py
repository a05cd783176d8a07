"""Memory by its parts: weights, KV cache, activations and workspace, allocator slack, CUDA graphs, and the rest."""

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from engine.event import Memory
from engine.measure.timeline import Timeline

PARTS = {
    "weights": "Bytes of the loaded model's weights, and of a draft model's.",
    "kv": "Keys and values that are kept for the text so far.",
    "activations": "Activations and workspace: what a step computes with and gives back, and what libraries set aside.",
    "slack": "Memory that the allocator holds and nobody uses.",
    "graphs": "What recorded CUDA graphs keep for themselves.",
    "other": "The program and its libraries before the model was loaded; on a GPU its context, and other programs.",
}
"""From the bottom of the stack upwards."""
MOST_POINTS = 120


def parts(sample: Memory) -> dict[str, int] | None:
    """The bytes of each part at a sample's peak; None where the weights or the peak are unknown.

    On CUDA the parts together are what the whole GPU has in use, elsewhere what the process holds. Activations are
    what remains of the peak, so a part that is not resident (weights still on the disk) makes them smaller.
    """
    if sample.weights is None or sample.peak is None:
        return None
    kv, slack, graphs = sample.kv or 0, sample.slack or 0, sample.graphs or 0
    found = {"weights": sample.weights, "kv": kv, "graphs": graphs}
    if sample.reserved is not None:
        found["activations"] = sample.peak - sample.weights - kv
        found["slack"] = sample.reserved - sample.peak - graphs
        found["other"] = (sample.device or sample.reserved) - sample.reserved
    else:
        found["other"] = sample.base or 0
        found["slack"] = slack
        found["activations"] = sample.peak - sample.weights - kv - slack - (sample.base or 0)
    return {name: max(0, found[name]) for name in PARTS}


def at_peak(samples: Iterable[Memory]) -> dict[str, int] | None:
    """The parts at the sample with the highest peak."""
    known = [sample for sample in samples if parts(sample)]
    return parts(max(known, key=lambda sample: sample.peak or 0)) if known else None


def timeline(turn: Timeline) -> dict[str, list[float]] | None:
    """The parts over one turn: `seconds` since its first request, and for each part as many bytes."""
    start = turn.started
    if start is None:
        return None
    found = [(sample.t - start, held) for sample in _thinned(turn.memory) if (held := parts(sample))]
    if not found:
        return None
    stacked: dict[str, list[float]] = {name: [held[name] for _, held in found] for name in PARTS}
    return {"seconds": [round(t, 3) for t, _ in found], **stacked}


def stack(turns: Mapping[int, Timeline]) -> dict[str, Any]:
    """A lane's parts at its peak over all turns, and over its typical turn: the one whose length is the median."""
    samples = [sample for turn in turns.values() for sample in turn.memory]
    lengths = {n: turn.last - turn.started for n, turn in turns.items() if turn.last and turn.started is not None}
    middle = median(lengths.values()) if lengths else 0.0
    typical = min(lengths, key=lambda n: abs(lengths[n] - middle), default=None)
    return {"parts": at_peak(samples), "timeline": timeline(turns[typical]) if typical is not None else None}


def _thinned(samples: list[Memory]) -> list[Memory]:
    """At most so many as a picture can show, each of them the highest of its neighbours; the last one always."""
    size = -(-len(samples) // MOST_POINTS) or 1
    groups = [samples[start : start + size] for start in range(0, len(samples), size)]
    return [max(group, key=lambda sample: sample.peak or 0) for group in groups]
