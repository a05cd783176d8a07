"""Result: the JSON contract of a run, folded from its records."""

from collections.abc import Iterable
from dataclasses import replace
from statistics import median
from typing import Any

from engine.event import Failed, Judged, Record
from engine.measure.acceptance import speculation
from engine.measure.ceiling import ceiling
from engine.measure.energy import energy
from engine.measure.fate import apart, fate, fault, parting
from engine.measure.fit import foreseen
from engine.measure.memory_parts import stack
from engine.measure.metrics import METRICS, Metric, itl_ms
from engine.measure.occupancy import occupancy
from engine.measure.prices import cost
from engine.measure.quality import price
from engine.measure.rounds import account, conditions, said, spoil
from engine.measure.timeline import RequestLine, Terms, Timeline
from engine.measure.verdict import MIN_PAIRS, Verdict, judge
from engine.measure.why import findings, spoken
from engine.spec import Experiment, Lane

SCHEMA = 1
APART = (
    "They did not fit into memory together, so their rounds did not alternate, and what else the machine did may be "
    "all of the difference: free memory, or choose a smaller model."
)
COSTS = ("import_s", "fetch_s", "load_s", "quantize_s", "compile_s", "capture_s", "warmup_s", "profile_s")


class LaneFold:
    """One lane's timelines: its preparation, and one for each round.

    `first` and `last` are the places of the rounds' records among those of all lanes: they tell what ran when.
    """

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.prepare = Timeline()
        self.rounds: dict[int, Timeline] = {}
        self.first = self.last = 0
        self.judged: dict[str, Any] = {}
        self.withdrawn: dict[int, str] = {}
        self.out: dict[int, str] = {}
        self.steady = ""

    def see(self, record: Record, place: int) -> None:
        if isinstance(record.event, Judged):
            self.judged |= record.event.values
        if record.round is not None:
            self.first, self.last = self.first if self.rounds else place, place
        line = self.prepare if record.round is None else self.rounds.setdefault(record.round, Timeline(self.terms))
        line.see(record.event)

    @property
    def finished(self) -> dict[int, Timeline]:
        """The rounds that ended well."""
        return {n: line for n, line in self.rounds.items() if line.end and not isinstance(line.end, Failed)}

    @property
    def clean(self) -> dict[int, Timeline]:
        """The rounds that count: those that ended well and were not withdrawn; all of them where none is left."""
        return {n: line for n, line in self.finished.items() if n not in self.out} or self.finished

    @property
    def failure(self) -> Failed | None:
        ends = [self.prepare.end, *(line.end for line in self.rounds.values())]
        return next((end for end in ends if isinstance(end, Failed)), None)

    @property
    def effective(self) -> dict[str, Any]:
        """What really ran: the newest report wins, since a cache exists only after the first turn."""
        ends = [self.prepare.end, *(line.end for line in self.rounds.values())]
        return next((end.effective for end in reversed(ends) if getattr(end, "effective", None)), {})


def fold(experiment: Experiment, records: Iterable[Record]) -> list[LaneFold]:
    lanes = [LaneFold(Terms.of(experiment.workload)) for _ in experiment.lanes]
    for place, record in enumerate(records):
        lanes[record.lane].see(record, place)
    spoil(lanes)
    return lanes


def result(experiment: Experiment, machine: dict[str, Any], records: Iterable[Record]) -> dict[str, Any]:
    """The object that `--json` writes and the page shows. Unknown is None."""
    folds = fold(experiment, records)
    names = list(experiment.lanes)
    lanes = [_lane(experiment, name, fold, folds[0]) for name, fold in zip(names, folds, strict=True)]
    verdicts = [
        verdict
        for name, fold in zip(names[1:], folds[1:], strict=True)
        for verdict in _verdicts(name, fold, names[0], folds[0])
    ]
    for lane, one in zip(lanes, folds, strict=True):
        lane["energy"] = energy([(line.power, line.output_tokens) for line in one.clean.values()])
        lane["cost"] = cost(experiment.price_per_hour, machine, lane, lane["metrics"]["output_tok_per_s"])
        ran = (lane["effective"], list(one.clean.values()), machine.get("measured"))
        lane["ceiling"], lane["memory"]["predicted"] = ceiling(*ran), foreseen(*ran)
    findings(experiment, lanes, [vars(verdict) for verdict in verdicts])
    return {
        "schema": SCHEMA,
        "experiment": experiment.to_dict(),
        "machine": machine,
        "lanes": lanes,
        "verdicts": [vars(_explained(experiment, verdict, lanes)) for verdict in verdicts],
    }


def _lane(experiment: Experiment, name: str, fold: LaneFold, reference: LaneFold) -> dict[str, Any]:
    rounds = fold.finished
    failure = fold.failure
    complete = len(rounds) >= experiment.rounds
    newest = rounds[max(rounds)] if rounds else None
    effective = dict(fold.effective)
    costs = effective.pop("costs", {})
    return {
        "name": name,
        "lane": experiment.lanes[name].model_dump(mode="json"),
        "effective": effective,
        "status": "finished" if complete else failure.status if failure else "cancelled",
        "why": failure.why if failure else None,
        "hint": failure.hint if failure else None,
        "phases": {cost: costs.get(cost) for cost in COSTS},
        "warmup": effective.pop("warmup", None),
        "conditions": conditions(fold.clean.values()) | {"steady": fold.steady or None},
        "rounds": [_round(line) | {"withdrawn": said(fold, n)} for n, line in sorted(rounds.items())],
        "metrics": _metrics(list(fold.clean.values())),
        "speculation": speculation(rounds.values()),
        "memory": _memory(fold) | stack(fold.clean),
        "occupancy": occupancy(rounds.values()),
        "tokens": [line.tokens for _, line in sorted(newest.requests.items())] if newest else [],
        "text": [newest.text(request) for request in sorted(newest.requests)] if newest else [],
        "equality": _equality(experiment, fold, reference) | fold.judged.get("equality", {}),
        "quality": fold.judged.get("quality"),
    }


def _round(line: Timeline) -> dict[str, Any]:
    return {
        **{name: metric.read(line) for name, metric in METRICS.items()},
        "itl_ms": itl_ms(line),
        "output_tokens": line.output_tokens,
        "steps": line.steps,
        "in_flight_peak": line.peak,
        "queue_peak": line.queue,
        "drafted": line.drafted if line.drafted >= line.accepted else None,  # generate does not tell its guesses
        "accepted": line.accepted,
        "speculation": speculation([line]),
    }


def _metrics(lines: list[Timeline]) -> dict[str, float | None]:
    return {
        **{name: metric.over(lines) for name, metric in METRICS.items()},
        "output_tokens": median(line.output_tokens for line in lines) if lines else None,
    }


def _memory(fold: LaneFold) -> dict[str, int | None]:
    """The most over the rounds: what loading took for a moment is not what running takes."""
    samples = [memory for line in fold.rounds.values() for memory in line.memory] or fold.prepare.memory
    names = ("weights", "kv", "peak", "rss", "allocated", "reserved", "device")
    return {f"{name}_bytes": max((v for s in samples if (v := getattr(s, name))), default=None) for name in names}


def _equality(experiment: Experiment, fold: LaneFold, reference: LaneFold) -> dict[str, Any]:
    """Greedy tokens against the first lane's, request by request; None where there is nothing to compare."""
    first = next(iter(experiment.lanes))
    unknown = {"reference": first, "identical": None, "first_divergence": None, "request": None}
    if experiment.workload.temperature > 0 or not fold.finished or not reference.finished:
        return unknown
    mine, other = (f.finished[max(f.finished)].requests for f in (fold, reference))
    found = parting({r: line.tokens for r, line in mine.items()}, {r: line.tokens for r, line in other.items()})
    if found is None:
        return {**unknown, "identical": True}
    parted = [_parted(mine.get(request), line) for request, line in sorted(other.items())]
    return {**unknown, "identical": False, "first_divergence": found[1], "request": found[0], "parted": parted}


def _parted(mine: RequestLine | None, other: RequestLine) -> dict[str, int] | None:
    """Where an answer leaves the first lane's: the number of the token, and of the character before which it stands."""
    place = apart(mine.tokens, other.tokens) if mine else None
    return None if place is None else {"token": place, "character": len("".join(mine.text[:place]))}


def _verdicts(name: str, fold: LaneFold, over: str, reference: LaneFold) -> list[Verdict]:
    mine, other = fold.finished, reference.finished
    common = sorted(mine.keys() & other.keys())
    gone, why = account(fold.out, common)
    kept = [number for number in common if number not in fold.out]
    load = APART if _one_after_the_other(fold, reference) else fold.steady
    verdicts = []
    for metric in METRICS.values():
        both = [(metric.read(mine[n]), metric.read(other[n])) for n in (kept if metric.timed else common)]
        verdict = judge(name, over, metric, [(a, b) for a, b in both if a is not None and b is not None])
        sentence = why if gone and not kept else verdict.sentence + why
        if metric.timed:
            verdict = replace(verdict, withdrawn=gone, sentence=sentence)
        verdicts.append(_doubtful(verdict, metric, load) if load and metric.timed and verdict.ratio else verdict)
    if withdrawn := _withdrawn(name, fold) or _withdrawn(over, reference):
        return [replace(verdict, word="cannot tell", sentence=withdrawn) for verdict in verdicts]
    return verdicts


def _one_after_the_other(fold: LaneFold, reference: LaneFold) -> bool:
    """Whether all rounds of one lane came before all of the other's: they do not pair."""
    several = min(len(fold.rounds), len(reference.rounds)) > 1
    return several and (fold.last < reference.first or reference.last < fold.first)


def _doubtful(verdict: Verdict, metric: Metric, why: str) -> Verdict:
    """What was seen under a load of other programs, or one after the other: told, but no verdict."""
    speed = verdict.ratio if metric.better == "higher" else 1 / verdict.ratio
    pairs = "1 pair" if verdict.pairs == 1 else f"{verdict.pairs} pairs"
    how = "Run one after the other," if why == APART else "Under load"
    seen = f"{how} lane {verdict.lane} went at {speed:.2f}× the speed of lane {verdict.over} ({pairs})."
    return replace(verdict, word="cannot tell", sentence=f"{seen} {why}")


def _explained(experiment: Experiment, verdict: Verdict, lanes: list[dict[str, Any]]) -> Verdict:
    """The headline's sentence goes on with why, from the run's own figures or else with what is likely."""
    lane, over = (next(one for one in lanes if one["name"] == name) for name in (verdict.lane, verdict.over))
    withdrawn = lane["effective"].get("unmet") or over["effective"].get("unmet") or fault(lane["equality"])
    if verdict.metric != next(iter(METRICS)) or not verdict.pairs or withdrawn:
        return verdict
    because = _because(experiment, verdict.lane, verdict, lane["equality"], spoken(lane["findings"]))
    lent = lane["effective"].get("lent") or over["effective"].get("lent")
    where = f" Measured on {lent}." if lent else ""
    return replace(verdict, sentence=f"{verdict.sentence}{because}{price(over)}{price(lane)}{where}")


def _withdrawn(name: str, fold: LaneFold) -> str:
    """A lane that ran something else than its label says, or lost what it may not, is not compared: the sentence."""
    unmet, equality = fold.effective.get("unmet"), fold.judged.get("equality", {})
    if fault(equality):
        return f"Lane {name} should have written the first lane's text, so it is not compared. {fate(equality)}"
    return f"Lane {name} did not run as it is labelled, so it is not compared: {' '.join(unmet)}" if unmet else ""


def _because(experiment: Experiment, name: str, verdict: Verdict, equality: dict[str, Any], evidence: str = "") -> str:
    """Why, and the text's fate. Where the run's own figures speak, nothing is guessed."""
    mine, other = experiment.lanes[name], experiment.lanes[verdict.over]
    sure = verdict.pairs >= MIN_PAIRS and (verdict.word != "cannot tell" or not evidence)
    if "simulated" in (mine.backend.name(), other.backend.name()):
        text = " Simulated: these figures come from a timetable, not from a model."
    elif evidence:
        text = f" {evidence}" if sure else f" What the figures say of it: {evidence}"
    else:
        reasons = _likely(mine, other, verdict)
        lead = "Likely because" if sure else "If it is, likely because"
        text = f" {lead} {', and '.join(reasons)}." if reasons else ""
    return f"{text} {fate(equality)}".rstrip()


def _likely(mine: Lane, other: Lane, verdict: Verdict) -> list[str]:
    """The reasons in the words of the optimizations in which the two lanes differ: a hypothesis, not evidence."""
    word = verdict.word
    if word == "cannot tell" and verdict.ratio:
        word = "faster" if verdict.ratio > 1.1 else "slower" if verdict.ratio < 0.9 else word
    ours, theirs = mine.in_effect(), other.in_effect()
    opposite = {"faster": "slower", "slower": "faster"}.get(word, word)
    reasons = [opt.because(theirs.get(key), word) for key, opt in ours.items() if theirs.get(key) != opt]
    dropped = [opt.because(None, opposite) for key, opt in theirs.items() if key not in ours]
    reasons = [*filter(None, reasons), *(f"in lane {verdict.over} {reason}" for reason in dropped if reason)]
    return list(dict.fromkeys(reasons))
