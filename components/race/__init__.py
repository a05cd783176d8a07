"""The fold from Records to view lines: what the stage draws, as an append-only JSONL string."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from components.race.turn import Turn, in_use
from engine.event import Conditions, Event, Failed, Finished, Judged, Memory, Phase, Record, Request, Step
from engine.measure.metrics import METRICS, itl_ms, percentile
from engine.measure.rounds import spoil
from engine.measure.timeline import Terms, Timeline
from engine.spec import Experiment

REPLAY_TICK_S = 0.1

PHASES = {
    "probe": "measuring this machine, once",
    "import": "starting the engine",
    "fetch": "fetching the model",
    "load": "loading the model",
    "quantize": "quantizing the weights",
    "compile": "compiling the step",
    "capture": "recording the step",
    "warmup": "warming up",
    "profile": "counting launches",
    "run": "running",
    "quality": "reading a text for its quality",
}


def line(kind: str, **values: Any) -> str:
    """One view line. `<` is escaped, so that text of a model can never become markup on its way."""
    text = json.dumps({"kind": kind, **values}, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c") + "\n"


@dataclass
class LaneFold:
    """All that is known of one lane. `wanted` counts its rounds, `target` is the most tokens that a turn can have."""

    wanted: int
    target: int
    terms: Terms = field(default_factory=Terms)
    phase: str = "waiting"
    detail: list[Any] | None = None
    preparing: bool = False
    failed: Failed | None = None
    turn: Turn | None = None
    ended: list[Turn] = field(default_factory=list)
    memory: float | None = None
    reset: bool = False
    typical_shown: bool = False
    sent: dict[str, Any] = field(default_factory=dict)
    withdrawn: dict[int, str] = field(default_factory=dict)
    out: dict[int, str] = field(default_factory=dict)
    steady: str = ""

    @property
    def rounds(self) -> dict[int, Timeline]:
        """What engine.measure.rounds looks at."""
        return {turn.number: turn.timeline for turn in [*self.ended, *filter(None, [self.turn])]}

    def see(self, round_: int | None, event: Event) -> None:
        if isinstance(event, Memory):
            self.memory = in_use(event) if in_use(event) is not None else self.memory
        if isinstance(event, Failed):
            self.failed, self.phase = event, event.status
        if round_ is None:
            self._prepare(event)
        else:
            self._run(round_, event)

    def _prepare(self, event: Event) -> None:
        if isinstance(event, Phase):
            self.phase, self.preparing = PHASES.get(event.name, event.name), True
            self.detail = [event.done, event.total, event.unit] if event.total else None
        elif isinstance(event, Finished | Judged):
            self.phase, self.detail, self.preparing = "finished" if self.ended else "ready", None, False

    def _run(self, round_: int, event: Event) -> None:
        if self.turn is None or self.turn.number != round_:
            self.turn, self.reset = Turn(round_, Timeline(self.terms)), True
        self.turn.see(event)
        if isinstance(event, Request | Step):
            self.phase, self.detail = "running", None
        elif isinstance(event, Finished):
            self.ended.append(self.turn)
            self.phase = "finished" if len(self.ended) >= self.wanted else "waiting"

    def view(self) -> dict[str, Any]:
        """What to draw now; unknown is None."""
        turn = self.turn
        running = turn is not None and turn.timeline.end is None
        figures = self._live(turn) if running else self.medians()
        return {
            "phase": self.phase,
            "detail": self.detail,
            "running": running or self.preparing,
            **figures,
            "memory": self.memory,
            "tokens": turn.timeline.output_tokens if turn else 0,
            "progress": turn.progress(self.target) if turn else 0.0,
            "lap": turn.number + 1 if turn else 0,
            "lost": self.lost(),
            "typical": self.typical_shown and self.wanted > 1,
            "why": f"{self.failed.why} {self.failed.hint}".strip() if self.failed else None,
        }

    def lost(self) -> str | None:
        """Why the newest round that ended does not count, as a sentence; None if it does."""
        number = max((turn.number for turn in self.ended), default=None)
        clause = self.out.get(number)
        return f"Round {number + 1} does not count: {clause}." if clause and not self.typical_shown else None

    def _live(self, turn: Turn) -> dict[str, float | None]:
        return {"rate": turn.rate(), "ttft": METRICS["ttft_ms"].read(turn.timeline), "itl": turn.median_gap()}

    @property
    def counted(self) -> list[Turn]:
        """The rounds that no lane had to withdraw; all of them where none is left."""
        return [turn for turn in self.ended if turn.number not in self.out] or self.ended

    def medians(self) -> dict[str, float | None]:
        """The lane's figures once a turn has ended: the median over the rounds that count."""
        read = {"rate": METRICS["output_tok_per_s"].read, "ttft": METRICS["ttft_ms"].read}
        read["itl"] = lambda timeline: percentile(itl_ms(timeline), 0.5)
        turns = [turn.timeline for turn in self.counted]
        known = {name: [v for line in turns if (v := get(line)) is not None] for name, get in read.items()}
        return {name: median(found) if found else None for name, found in known.items()}

    def typical(self) -> int | None:
        """The number of the round nearest the lane's median rate: the one that a replay shows."""
        middle = self.medians()["rate"]
        rates = [(METRICS["output_tok_per_s"].read(turn.timeline), turn.number) for turn in self.counted]
        known = [(abs(rate - middle), number) for rate, number in rates if rate is not None]
        return min(known)[1] if known else None

    def delta(self) -> dict[str, Any]:
        """What changed since the last call, text and points included; empty when nothing did."""
        view = self.view()
        changed = {key: value for key, value in view.items() if self.sent.get(key, "") != value}
        self.sent = view
        if self.reset:
            changed["reset"], self.reset = True, False
        if self.turn and self.turn.pieces:
            changed["text"], self.turn.pieces = self.turn.pieces, []
        if self.turn and self.turn.points:
            changed["points"], self.turn.points = self.turn.points, {}
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in changed.items()}


class Race:
    """One experiment on the stage: feed it records, take view lines."""

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        most = experiment.workload.max_new_tokens * experiment.workload.count
        terms = Terms.of(experiment.workload)
        self.lanes = [LaneFold(experiment.rounds, most, terms) for _ in experiment.lanes]

    def see(self, records: Iterable[Record]) -> None:
        for record in records:
            if isinstance(record.event, Phase) and record.event.name != "probe":
                self._probed()
            self.lanes[record.lane].see(record.round, record.event)
            if isinstance(record.event, Conditions):
                spoil(self.lanes)

    def _probed(self) -> None:
        """The machine is measured before the first lane begins: from then on the others wait."""
        for fold in self.lanes:
            if fold.phase == PHASES["probe"]:
                fold.phase, fold.preparing = "waiting", False

    def start(self, **values: Any) -> str:
        """The first line of a log: what is going to happen."""
        of = self.experiment
        facts = {"title": of.title, "model": of.model, "rounds": of.rounds, "prompts": of.workload.count}
        return line("start", **facts, target=self.lanes[0].target, **values)

    def tick(self, **values: Any) -> str:
        """A line with all that changed, or nothing when nothing did."""
        deltas = {str(number): delta for number, fold in enumerate(self.lanes) if (delta := fold.delta())}
        return line("tick", lanes=deltas, **values) if deltas else ""


def typical_turns(lanes: list[LaneFold], records: list[Record]) -> Iterator[tuple[float, Record]]:
    """Each lane's typical round, every event with its time on the one clock of a replay, in order."""
    chosen = {number: fold.typical() for number, fold in enumerate(lanes)}
    turns = [r for r in records if r.round is not None and r.round == chosen[r.lane]]
    starts: dict[int, float] = {}
    for record in turns:
        if isinstance(record.event, Request):
            starts[record.lane] = min(record.event.t, starts.get(record.lane, record.event.t))
    placed = [(r.event.t - starts[r.lane], r) for r in turns if r.lane in starts]
    return iter(sorted(placed, key=lambda item: item[0]))


def replay(experiment: Experiment, records: list[Record], paced: bool = True) -> str:
    """The tick lines of a replay: all lanes on one clock, each line with the second `at` which it is due."""
    whole = Race(experiment)
    whole.see(records)
    race = Race(experiment)
    for fold, real in zip(race.lanes, whole.lanes, strict=True):
        fold.failed, fold.memory = real.failed, real.memory if not real.ended else None
        fold.phase = real.failed.status if real.failed and not real.ended else "ready"
    lines, due = [race.tick(at=0.0)], REPLAY_TICK_S
    for t, record in typical_turns(whole.lanes, records):
        while paced and t >= due:
            lines.append(race.tick(at=round(due, 2)))
            due += REPLAY_TICK_S
        event = replace(record.event, t=max(0.0, t)) if t < 0 else record.event
        race.lanes[record.lane].see(record.round, record.event if t >= 0 else event)
    lines.append(race.tick(at=round(due, 2)))
    for fold, real in zip(race.lanes, whole.lanes, strict=True):
        fold.out, fold.ended = real.out, real.ended
        fold.phase, fold.typical_shown = real.phase, bool(real.ended)
    lines.append(race.tick(at=round(due, 2)))
    return "".join(lines)
