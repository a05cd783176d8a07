"""Plan: what a backend will do for one lane, as plain data that optimizations edit."""

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from engine.models.architecture import Architecture

LEASE = (
    "backend", "model", "device", "dtype", "attention", "quantization", "packed", "native", "draft", "merged",
    "kernels", "compile", "threads", "replicas", "tensor_parallel",
)  # fmt: skip
ENOUGH = {"continuous.slots": "continuous.room", "speculation.guesses": "speculation.room"}
"""Counts of which there may be fewer than asked for, and where a session tells how many could have been used."""
LOSS = ("dtype", "quantization", "packed", "window", "kv_bits")
"""The fields that decide which numbers are computed with, and so how far predictions may be from the model's own."""


@dataclass
class Plan:
    """The settled configuration of one lane: printable, comparable, testable without torch.

    The fields of `LEASE` decide what a worker has loaded, so two plans that agree in them can use the same
    warm worker. `shape` is the model's architecture as far as it is known, `cores` and `gpus` what the machine has,
    `capability` the compute capability of the first GPU.
    `expected` says what the session must report as really run, name by name; a dot leads into a table.
    """

    backend: str
    model: str
    device: str = "cpu"
    shape: Architecture | None = None
    dtype: str = "float32"
    attention: str = "sdpa"
    sdpa: str | None = None
    quantization: dict[str, Any] | None = None
    packed: dict[str, Any] | None = None
    native: bool = False
    cache: str = "dynamic"
    window: dict[str, Any] | None = None
    kv_bits: dict[str, Any] | None = None
    offload: bool = False
    prefix: int = 0
    speculation: dict[str, Any] | None = None
    draft: dict[str, Any] | None = None
    batch: int = 1
    continuous: dict[str, Any] | None = None
    compile: str | None = None
    merged: bool = False
    kernels: bool = False
    graph: bool = False
    threads: int | None = None
    replicas: int = 1
    tensor_parallel: int = 1
    cores: int = 1
    gpus: int = 0
    capability: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    expected: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def lease(self) -> tuple:
        """The key under which a worker with this plan's model is kept warm.

        A compiled step holds the fused operator that it was compiled with, whichever is asked for later.
        """
        return (*(repr(getattr(self, name)) for name in LEASE), repr(self.sdpa if self.compile else None))

    def loss(self) -> tuple:
        """What is lost on the way: plans that agree in it claim to write the same text."""
        return tuple(repr(getattr(self, name)) for name in LOSS)

    @property
    def compiles(self) -> bool:
        """Whether something is compiled before the first token."""
        return bool(self.compile) or self.attention == "flex_attention"

    def older_than(self, capability: float) -> bool:
        """Whether this runs on a GPU of a lower compute capability."""
        return self.device == "cuda" and self.capability is not None and self.capability < capability

    def batch_of(self, requests: int) -> int:
        """Requests in one static batch of so many: no more than leaves something for every replica."""
        return min(self.batch, -(-requests // self.replicas))

    def unmet(self, found: dict[str, Any]) -> list[str]:
        """Where `found`, read back from what ran, is not what was `expected`: a sentence each.

        What cannot be read back counts as not run: a label may only stand on evidence. Where something did not run at
        all, its settings are not told as well.
        """
        asked = [(name, wanted) for name, wanted in self.expected.items() if not self._whole_is_missing(name, found)]
        pairs = [(name, _enough(name, wanted, found), _at(found, name)) for name, wanted in asked]
        return [
            f"Asked for {re.sub('[_.]', ' ', name)} {_said(wanted)}, but {_said(ran)} ran."
            for name, wanted, ran in pairs
            if not _met(wanted, ran)
        ]

    def _whole_is_missing(self, name: str, found: dict[str, Any]) -> bool:
        whole = name.rpartition(".")[0]
        return whole in self.expected and not _at(found, whole)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _at(found: dict[str, Any], name: str) -> Any:
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _enough(name: str, wanted: Any, found: dict[str, Any]) -> Any:
    """What was asked for, or as much of it as could be used."""
    room = _at(found, ENOUGH[name]) if name in ENOUGH else None
    return wanted if room is None else min(wanted, room)


def _met(wanted: Any, found: Any) -> bool:
    if isinstance(found, dict) and not isinstance(wanted, dict):
        found = found.get("kind")
    return found == wanted or (wanted is True and bool(found))


def _said(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("kind", value)
    return "nothing" if value in (None, False, 0, "") else "on" if value is True else str(value)
