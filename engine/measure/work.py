"""Work: the bytes that one pass over a model must move and the operations it must do, from its shape alone."""

from dataclasses import dataclass
from typing import Any

from engine.measure.formats import Formats
from engine.models.architecture import Architecture
from engine.models.parameters import Parameters, parameters


@dataclass(frozen=True)
class Work:
    """Bytes by part and operations (a multiplication and an addition are two) of one pass.

    Counted is what no implementation can save: each weight once, the kept keys and values once, the logits, and
    the scores where attention writes them out. Activations between layers are not: they stay in caches.
    """

    bytes: dict[str, float]
    operations: float

    @property
    def moved(self) -> float:
        """All bytes."""
        return sum(self.bytes.values())

    @property
    def intensity(self) -> float | None:
        """Operations for each byte: the place across in a roofline picture."""
        return self.operations / self.moved if self.moved else None

    def __add__(self, other: "Work") -> "Work":
        names = dict.fromkeys((*self.bytes, *other.bytes))
        both = {name: self.bytes.get(name, 0.0) + other.bytes.get(name, 0.0) for name in names}
        return Work(both, self.operations + other.operations)

    def times(self, count: float, name: str | None = None) -> "Work":
        """This pass `count` times; with a `name` all of its bytes are one part."""
        parts = {name: self.moved} if name else self.bytes
        return Work({part: count * size for part, size in parts.items()}, count * self.operations)

    def to_dict(self) -> dict[str, Any]:
        return {"bytes": self.bytes, "operations": self.operations, "intensity": self.intensity}


def forward(
    shape: Architecture, formats: Formats, new: float, kept: float = 0.0, rows: float = 1.0, logits: float = 1.0,
    reach: float | None = None, scores: bool = False,
) -> Work:  # fmt: skip
    """One pass in which each of `rows` requests reads `new` tokens after `kept` ones and needs `logits` of them.

    Prefill is new = the prompt's length, a decode step new = 1, a check of g guesses new = logits = g + 1, a step
    without a KV cache new = the whole text. `reach` are the places of the cache that attention reads where that is
    not what is kept: a static cache is read at full length, a window keeps fewer. `scores` says that attention
    writes its score matrix out. Experts are routed to at random, so t tokens meet E(1 - (1 - k/E)^t) of E.
    """
    counted = parameters(shape)
    tokens = rows * new
    read = kept if reach is None else reach
    places = _places(shape, read)
    head = shape.vocabulary * shape.hidden
    parts = {
        "weights": counted.linear * formats.weight
        + (counted.router + counted.small + head) * formats.plain
        + _met(shape, counted, tokens) * formats.weight
        + tokens * shape.hidden * formats.plain * (2 if counted.positions else 1),
        "kv": rows * 2 * shape.kv_heads * shape.head_dim * (places + shape.layers * new) * formats.kv,
        "logits": rows * logits * shape.vocabulary * formats.plain,
    }
    pairs = rows * _pairs(shape, new, read)
    if scores:
        parts["scores"] = 2 * shape.heads * pairs * formats.plain
    active = counted.linear + counted.router + shape.experts_per_token * _mixtures(shape) * counted.expert
    products = 2 * tokens * active + 2 * rows * logits * head
    return Work(parts, products + 4 * shape.heads * shape.head_dim * pairs)


def _mixtures(shape: Architecture) -> int:
    return shape.layers - shape.dense_layers if shape.experts else 0


def _met(shape: Architecture, counted: Parameters, tokens: float) -> float:
    """Weights of the routed experts that `tokens` tokens meet in all layers."""
    if not shape.experts:
        return 0.0
    missed = (1 - min(1.0, shape.experts_per_token / shape.experts)) ** tokens
    return _mixtures(shape) * shape.experts * (1 - missed) * counted.expert


def _places(shape: Architecture, kept: float) -> float:
    """Places of one request's cache that are read, all layers together."""
    if not shape.keeps_kv:
        return 0.0
    narrow = min(kept, shape.window) if shape.window else kept
    return (shape.layers - shape.sliding) * kept + shape.sliding * narrow


def _pairs(shape: Architecture, new: float, kept: float) -> float:
    """Pairs of a query and a key that it sees, all layers together: the i-th new token sees `kept` + i."""
    whole = new * kept + new * (new + 1) / 2
    return (shape.layers - shape.sliding) * whole + shape.sliding * _windowed(new, kept, shape.window)


def _windowed(new: float, kept: float, window: int | None) -> float:
    """The same for one layer in which a token sees the newest `window` tokens only, itself included."""
    if window is None:
        return new * kept + new * (new + 1) / 2
    growing = min(new, max(0.0, window - kept))
    return growing * kept + growing * (growing + 1) / 2 + (new - growing) * window
