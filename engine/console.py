"""What the command line shows: live bars while lanes run, and a table to paste into an issue at the end."""

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from engine.event import Failed, Finished, Phase, Record, Step
from engine.measure.fate import fault
from engine.measure.metrics import METRICS, output_tok_per_s
from engine.measure.quality import FIGURES
from engine.measure.timeline import Terms, Timeline
from engine.measure.verdict import figure, together
from engine.spec import Experiment
from engine.ways import taken

EMPTY = "–"


class Bars:
    """One bar for each lane, fed record by record."""

    def __init__(self, experiment: Experiment, screen: Console):
        self.experiment = experiment
        columns = (TextColumn("{task.fields[name]:<8}"), BarColumn(), TextColumn("{task.description}"))
        self.progress = Progress(*columns, console=screen, transient=True)
        tokens = experiment.workload.count * experiment.workload.max_new_tokens  # with spread lengths, the most
        self.tasks = [self.progress.add_task("waits", total=tokens, name=f"Lane {name}") for name in experiment.lanes]
        self.terms = Terms.of(experiment.workload)
        self.lines = [Timeline(self.terms) for _ in experiment.lanes]
        self.rounds: list[int | None] = [None] * len(experiment.lanes)

    def see(self, record: Record) -> None:
        event = record.event
        if record.round != self.rounds[record.lane]:
            self.lines[record.lane], self.rounds[record.lane] = Timeline(self.terms), record.round
        line = self.lines[record.lane]
        line.see(event)
        if isinstance(event, Step):
            rate = output_tok_per_s(line)
            number = (record.round or 0) + 1
            text = f"round {number} of {max(number, self.experiment.rounds)}  {rate or 0:6.1f} tok/s"
            self.progress.update(self.tasks[record.lane], completed=line.output_tokens, description=text)
        elif isinstance(event, Phase):
            self.progress.update(self.tasks[record.lane], description=phase_text(event))
        elif isinstance(event, Finished) and record.round is not None:
            self.progress.update(self.tasks[record.lane], completed=self.progress.tasks[record.lane].total)
        elif isinstance(event, Failed):
            self.progress.update(self.tasks[record.lane], description=event.why)


def phase_text(phase: Phase) -> str:
    """For instance "fetch 41 of 93 MB"."""
    if phase.total and phase.unit in ("B", "bytes"):
        return f"{phase.name} {(phase.done or 0) / 1e6:.0f} of {phase.total / 1e6:.0f} MB"
    if phase.total:
        return f"{phase.name} {phase.done or 0:.0f} of {phase.total:.0f} {phase.unit}"
    return phase.name


def follow(bars: Bars, pull: Callable[[int], list[Record]], going: Callable[[], bool]) -> list[Record]:
    """Show records as they come until nothing is going any more; returns all of them."""
    seen: list[Record] = []
    with bars.progress:
        while True:
            alive = going()
            fresh = pull(len(seen))
            for record in fresh:
                bars.see(record)
            seen += fresh
            if not alive and not fresh:
                return seen
            time.sleep(0.1)


def replay(bars: Bars, records: Iterable[Record], screen: Console) -> None:
    """Race the last round of every lane on one clock, at the speed at which it ran."""
    records = list(records)
    last = {r.lane: r.round for r in records if r.round is not None}
    rounds = [[r for r in records if (r.lane, r.round) == (lane, number)] for lane, number in last.items()]
    timed = [(r.event.t - turn[0].event.t, r) for turn in rounds for r in turn]
    start = time.monotonic()
    with bars.progress:
        for due, record in sorted(timed, key=lambda pair: pair[0]):
            time.sleep(max(0.0, start + due - time.monotonic()))
            bars.see(record)
    for name, line in zip(bars.experiment.lanes, bars.lines, strict=True):
        text = "\n".join(line.text(request) for request in sorted(line.requests))
        screen.print(f"Lane {name}\n{text}\n", markup=False, highlight=False)


def table(result: dict[str, Any]) -> str:
    """Markdown: one column for each lane, ratios against the first, then the verdicts' sentences."""
    lanes = result["lanes"]
    rows = [["", *(f"Lane {lane['name']}" for lane in lanes)]]
    alone = {v["lane"] for v in result["verdicts"] if not v["pairs"]}

    def base(lane: dict[str, Any]) -> dict[str, Any]:
        """The lane to which this one is compared: itself where no pair of rounds can be used."""
        return lane if lane["name"] in alone else lanes[0]

    rows.append(["What is on", *(badges(lane["lane"]) for lane in lanes)])
    chosen = [taken(lane["effective"].get("notes", ())) for lane in lanes]
    if any(chosen):
        rows.append(["Chosen for this machine", *(one or EMPTY for one in chosen)])
    rows.append(["Status", *(_status(lane) for lane in lanes)])
    for name, metric in METRICS.items():
        if any(lane["metrics"].get(name) is not None for lane in lanes):
            rows.append([f"{metric.title}, {metric.unit}", *(_cell(lane, base(lane), name) for lane in lanes)])
    for row in FIGURES:
        if any(row.read(lane) is not None for lane in lanes):
            rows.append([f"{row.title}, {row.unit}", *(_loss(row.read(lane)) for lane in lanes)])
    if any(lane.get("ceiling", {}).get("decode") for lane in lanes):
        rows.append(["Share of the ceiling, prefill / decode", *(_shares(lane["ceiling"]) for lane in lanes)])
    rows.append(["Weights / KV / peak, MB", *(_bytes(lane["memory"]) for lane in lanes)])
    rows += [[title, *map(read, lanes)] for title, read in FACTS.items() if any(read(lane) != EMPTY for lane in lanes)]
    rows.append(["Load / compile / warm-up, s", *(_costs(lane["phases"]) for lane in lanes)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    headline = next(iter(METRICS))
    sentences = [said for _, said in together(v for v in result["verdicts"] if v["metric"] == headline)]
    faults = [f"Lane {lane['name']}: {lane['why']} {lane['hint'] or ''}".strip() for lane in lanes if lane["why"]]
    return "\n".join([*lines, "", *faults, *sentences, *_cards(lanes), _machine(result["machine"])])


def badges(lane: dict[str, Any]) -> str:
    """What a lane has switched on, in a few words."""
    backend = lane["backend"] if isinstance(lane["backend"], str) else lane["backend"]["name"]
    on = [", ".join(str(value) for value in knobs.values()) for knobs in lane["opts"].values()]
    named = [f"{name} {values}".strip() for name, values in zip(lane["opts"], on, strict=True)]
    return "; ".join(([] if backend == "transformers" else [backend]) + named) or "baseline"


def _cards(lanes: list[dict[str, Any]]) -> list[str]:
    """Why, lane by lane, from the run's own figures, and as an option of the command line what to try next."""
    found = [(lane["name"], card) for lane in lanes for card in lane.get("findings", ())]
    lines = [f"- {name}: {card['sentence']}{_next(name, card['next'])}" for name, card in found]
    return ["", "Why, from the figures of this run:", *lines, ""] if lines else []


def _next(lane: str, assignments: dict[str, Any] | None) -> str:
    put = [
        f"--set 'lanes.{lane}.{address.partition('.')[2]}={json.dumps(value)}'"
        for address, value in (assignments or {}).items()
    ]
    return f" Try next: {' '.join(put)}" if put else ""


def _status(lane: dict[str, Any]) -> str:
    simulated = ", simulated" if lane["effective"].get("simulated") else ""
    wrong = ["not the text that it should have written"] if fault(lane["equality"]) else []
    return ", ".join([lane["status"] + simulated, *wrong, *lane["effective"].get("unmet", [])])


def _cell(lane: dict[str, Any], first: dict[str, Any], name: str) -> str:
    value, base = lane["metrics"].get(name), first["metrics"].get(name)
    if value is None:
        return EMPTY
    return figure(value) if lane is first or not base else f"{figure(value)} ({value / base:.2f}×)"


def _loss(value: float | None) -> str:
    return EMPTY if value is None else figure(value) if value >= 0.01 else f"{value:.1g}"


def _bytes(memory: dict[str, Any]) -> str:
    values = (memory[f"{name}_bytes"] for name in ("weights", "kv", "peak"))
    return " / ".join(EMPTY if value is None else f"{value / 1e6:.0f}" for value in values)


def _shares(ceiling: dict[str, Any]) -> str:
    """For instance "41 % (compute) / 28 % (memory)": how near to what the machine allows, and what limits there."""
    said = []
    for phase in ceiling.values():
        share = phase and phase["share"]
        said.append(f"{share:.0%} ({phase['bound']})".replace("%", " %") if share else EMPTY)
    return " / ".join(said)


def _parts(lane: dict[str, Any]) -> str:
    parts = lane["memory"].get("parts") or {}
    return " / ".join(f"{parts[name] / 1e6:.0f}" for name in ("activations", "slack", "other")) if parts else EMPTY


def _known(where: str, key: str) -> Callable[[dict[str, Any]], str]:
    def read(lane: dict[str, Any]) -> str:
        value = (lane.get(where) or {}).get(key)
        return EMPTY if value is None else figure(value)

    return read


def _warmup(lane: dict[str, Any]) -> str:
    found = lane.get("warmup")
    return f"{found['runs']}, {found['apart']:.1%}" if found else EMPTY


def _withdrawn(lane: dict[str, Any]) -> str:
    gone = sum(bool(turn.get("withdrawn")) for turn in lane["rounds"])
    return f"{gone} of {len(lane['rounds'])}" if gone else EMPTY


def _costs(phases: dict[str, Any]) -> str:
    values = (phases[name] for name in ("load_s", "compile_s", "warmup_s"))
    return " / ".join(EMPTY if value is None else f"{value:.1f}" for value in values)


def _machine(machine: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {machine['packages'][name]}" for name in ("torch", "transformers"))
    gpu = machine["gpus"][0]["name"] if machine["gpus"] else "no GPU"
    return f"{machine['processor']}, {machine['cores']} cores, {gpu}, {packages}."


FACTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "Activations / slack / program at the peak, MB": _parts,
    "Energy, J per token": _known("energy", "joules_per_token"),
    "Cost, $ per million tokens": _known("cost", "per_million_tokens"),
    "Cores that other programs used": _known("conditions", "others_cores"),
    "Rounds withdrawn": _withdrawn,
    "Warm-ups discarded, last two apart": _warmup,
}
"""Rows of the table that no metric gives; one that no lane knows is left out."""
