"""The spine: what an engine says while it works, one event per engine step."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Phase:
    """A stage begins or advances: import, fetch, load, compile, warmup, run. `done` of `total` in `unit`."""

    t: float
    name: str
    done: float | None = None
    total: float | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """A request with `prompt_tokens` tokens arrives: its TTFT counts from here, also while it waits for a place."""

    t: float
    request: int
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Admitted:
    """A waiting request gets its place in the engine; `reused` of its prompt tokens were read for an earlier one."""

    t: float
    request: int
    reused: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One engine step: the tokens that each of `requests` received and how their text continues.

    `requests`, `tokens` and `text` run in parallel; `text` holds one piece per token. `cached` is the length
    of the KV cache in tokens (all requests together where each has its own), `drafted` and `accepted` count the
    speculated tokens of this step, and `waiting` the requests that have arrived and have no place yet.
    """

    t: float
    requests: tuple[int, ...]
    tokens: tuple[tuple[int, ...], ...]
    text: tuple[tuple[str, ...], ...] = ()
    cached: int = 0
    drafted: int = 0
    accepted: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes in use; None is unknown. On CUDA `allocated`, `reserved` (by torch) and `device` (whole GPU).

    `peak` is the most since the sample before, `base` what the process held before its model was loaded, `slack`
    what the allocator keeps free for later, and `graphs` what recorded CUDA graphs keep for themselves.
    """

    t: float
    weights: int | None = None
    kv: int | None = None
    rss: int | None = None
    peak: int | None = None
    allocated: int | None = None
    reserved: int | None = None
    device: int | None = None
    base: int | None = None
    slack: int | None = None
    graphs: int | None = None


@dataclass(frozen=True, slots=True)
class Power:
    """A counter of energy said so many `joules` for the last `seconds`; `source` is the counter's name."""

    t: float
    joules: float
    seconds: float
    source: str


@dataclass(frozen=True, slots=True)
class Conditions:
    """What happened on the machine during a turn of `seconds`; None is unknown.

    `own`, `others` and `idle` are processor seconds over all `cores`: of this lane's processes, of everything else,
    and of nobody; `waited` is how long the lane's threads were ready to run and got no core. `swapped` counts bytes of
    the whole machine, `faults` the lane's pages that came from a disk. `held` are seconds in which a quota held it
    back, `throttles` how often heat slowed the processor, `heat` the seconds in which heat or power slowed the GPU;
    `strangers` are other processes that computed on it, and `clock` is its speed in MHz at the end. `recompiles`
    counts graphs that were compiled meanwhile, `suspended` the seconds that the machine slept.
    """

    t: float
    seconds: float
    cores: int | None = None
    own: float | None = None
    others: float | None = None
    idle: float | None = None
    waited: float | None = None
    swapped: int | None = None
    faults: int | None = None
    held: float | None = None
    throttles: int | None = None
    heat: float | None = None
    strangers: int | None = None
    clock: float | None = None
    recompiles: int | None = None
    suspended: float | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """After the turns, what a lane's text is worth: `quality` against the reference, or the fate of its `equality`."""

    t: float
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Point:
    """A lab measured the point with this `index` of its grid once: its `seconds`, and at first what else is known."""

    t: float
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finished:
    """The turn ended well. `effective` is read back from what really ran."""

    t: float
    effective: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """The turn ended badly: a sentence and a hint."""

    t: float
    why: str
    hint: str = ""
    status: Literal["failed", "refused", "cancelled"] = "failed"


Event = Phase | Request | Admitted | Step | Memory | Power | Conditions | Judged | Point | Finished | Failed
TERMINAL = (Finished, Failed)
KINDS: dict[str, type] = {
    kind.__name__.lower(): kind
    for kind in (Phase, Request, Admitted, Step, Memory, Power, Conditions, Judged, Point, Finished, Failed)
}


def to_dict(event: Event) -> dict[str, Any]:
    """A JSON-ready dict; keys that hold their default are left out."""
    full = {key: value for key, value in asdict(event).items() if value not in (None, "", (), {})}
    return {"kind": type(event).__name__.lower(), **full}


def from_dict(data: dict[str, Any]) -> Event:
    """The inverse of `to_dict`. Raises KeyError for an unknown kind."""
    values = {key: _tuples(value) for key, value in data.items() if key != "kind"}
    return KINDS[data["kind"]](**values)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class Record:
    """An event with its place in an experiment: which lane, which round (None while the lane prepares)."""

    lane: int
    round: int | None
    event: Event

    def line(self) -> str:
        """One JSON line."""
        return json.dumps({"lane": self.lane, "round": self.round, **to_dict(self.event)}, separators=(",", ":"))

    @classmethod
    def parse(cls, line: str) -> "Record":
        """The inverse of `line`."""
        data = json.loads(line)
        return cls(data.pop("lane"), data.pop("round"), from_dict(data))
