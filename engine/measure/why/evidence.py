"""Evidence: what two lanes of one run measured, side by side, as the rules read it."""

from dataclasses import dataclass, field
from functools import reduce
from statistics import median
from typing import Any

from engine.measure.verdict import MIN_PAIRS, figure

CLEAR = 1.1
"""Without enough pairs for a verdict a metric counts as moved only beyond ten percent."""
OPPOSITE = {"faster": "slower", "slower": "faster"}
QUICKER = (
    {"lane.opts.native_step": {}}, {"lane.opts.cuda_graph": {}}, {"lane.opts.torch_compile": {}},
    {"lane.opts.merged_projections": {}},
)  # fmt: skip
"""What starts less work in a step and spends less time around reading the weights, the most first."""


@dataclass(frozen=True)
class Finding:
    """One sentence with the figures it stands on.

    `explains` is the direction of the headline that it accounts for (faster, slower, same), None where it tells
    something beside it. `attempts` are assignments worth trying next, best first; `next` is the one that can run.
    """

    rule: str
    sentence: str
    evidence: dict[str, Any]
    explains: str | None = None
    attempts: tuple[dict[str, Any], ...] = ()
    next: dict[str, Any] | None = None

    def card(self) -> dict[str, Any]:
        """JSON-ready."""
        names = ("rule", "sentence", "evidence", "explains", "next")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Side:
    """A lane's part of the result, by the words of the rules. Times are milliseconds; unknown is None."""

    lane: dict[str, Any]

    @property
    def name(self) -> str:
        return f"lane {self.lane['name']}"

    def get(self, path: str) -> Any:
        """A value by its dotted path, None where the result does not hold it."""
        return reduce(
            lambda place, key: place.get(key) if isinstance(place, dict) else None, path.split("."), self.lane
        )

    def metric(self, name: str) -> float | None:
        return self.get(f"metrics.{name}")

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a step gives a request: 1 without guesses."""
        found = [one["tokens_per_step"] for one in self.lane["rounds"] if one.get("tokens_per_step")]
        return median(found) if found else 1.0

    @property
    def step_ms(self) -> float | None:
        """How long one step takes, guessing included: TPOT times the tokens of a step."""
        tpot = self.metric("tpot_ms")
        return tpot * self.tokens_per_step if tpot else None

    @property
    def in_flight(self) -> float:
        return self.metric("in_flight") or 1.0

    @property
    def guesses(self) -> bool:
        return bool(self.lane.get("speculation"))

    @property
    def workers(self) -> int:
        """Processes with a whole model each."""
        return self.get("effective.replicas.kind") or 1

    @property
    def ranks(self) -> int:
        """Processes that share the layers of one model."""
        return self.get("effective.tensor_parallel.kind") or 1

    @property
    def step_bytes(self) -> float | None:
        """Bytes that a decode step reads: as the ceiling counts them, else the weights and the keys and values."""
        counted = self.get("ceiling.decode.bytes")
        if isinstance(counted, dict):
            return sum(value for value in counted.values() if value) or None
        weights, kv = self.get("memory.weights_bytes"), self.get("memory.kv_bytes")
        return weights + (kv or 0) if weights and not self.guesses else None


@dataclass(frozen=True)
class Pair:
    """`lane` against `over`, and the verdicts on it by metric."""

    lane: Side
    over: Side
    verdicts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def moved(self, metric: str) -> str | None:
        """faster, slower or same as the verdict says; a lean beyond ten percent where rounds are few; else None."""
        verdict = self.verdicts.get(metric) or {}
        ratio, word = verdict.get("ratio"), verdict.get("word")
        if word in ("faster", "slower", "same") or not ratio:
            return word if ratio else None
        if verdict.get("pairs", 0) >= MIN_PAIRS and 1 / CLEAR <= ratio <= CLEAR:
            return None
        higher = metric == "output_tok_per_s"
        return None if 1 / CLEAR <= ratio <= CLEAR else "faster" if (ratio > 1) == higher else "slower"

    @property
    def swapped(self) -> "Pair":
        """The same two lanes seen from the other one."""
        turned = {name: {**verdict, **_turned(verdict)} for name, verdict in self.verdicts.items()}
        return Pair(self.over, self.lane, turned)


def _turned(verdict: dict[str, Any]) -> dict[str, Any]:
    ratio, word = verdict.get("ratio"), verdict.get("word")
    return {"ratio": ratio and 1 / ratio, "word": OPPOSITE.get(word, word)}


def ms(value: float) -> str:
    """A time with its unit."""
    return f"{value / 1000:,.1f} s" if value >= 10_000 else f"{figure(value)} ms"


def mb(value: float) -> str:
    """Bytes with their unit."""
    return f"{figure(value / 1e9)} GB" if value >= 1e9 else f"{figure(value / 1e6)} MB"


def times(ratio: float) -> str:
    return f"{ratio:.2f}×" if ratio < 9.95 else f"{ratio:,.0f}×"


def percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 or not share else f"{100 * share:.1g}%"


def said(sentence: str) -> str:
    """A sentence begins with a capital letter, also where it begins with a lane's name."""
    return sentence[:1].upper() + sentence[1:]
