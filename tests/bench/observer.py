"""Whether measuring and being watched cost anything: a bare loop against the same loop with everything on."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from engine.bench.measuring import measure
from engine.event import Event, Request, Step
from engine.measure.machine import machine
from engine.measure.verdict import interval
from engine.run.pool import Pool
from engine.run.sender import Sender, lines
from engine.run.worker import Worker
from engine.spec import Experiment, plan_for

ROOT = Path(__file__).parents[2]
SLOW_S = 0.005
TOKENS = 64
READER = """
import json, sys, time
from components.race import Race
from components.watch import POLL_S
from engine.event import TERMINAL, Record, from_dict
from engine.spec import Experiment
race = Race(Experiment.read(json.loads(sys.argv[1])))
turn, shown = None, time.monotonic()
for line in sys.stdin:
    event = from_dict(json.loads(line))
    race.see([Record(0, turn, event)])
    if isinstance(event, TERMINAL):
        turn = 0 if turn is None else turn + 1
    if time.monotonic() - shown >= POLL_S:
        race.tick()
        shown = time.monotonic()
"""
"""The parent's part: it reads every event and folds it into what a page shows, as often as a page asks."""


def run(pool: Pool, rounds: int, model: str, only: list[str]) -> dict[str, Any]:
    """The real model in this process, bare and observed in turn; then a slow reader of a known timetable."""
    return {"bare": bare(rounds, model), "slow reader": slow_reader(pool, rounds)}


class Observed(Worker):
    """A worker that also notes when its steps were."""

    def __init__(self, sender: Sender):
        super().__init__(sender)
        self.times: list[float] = []

    def emit(self, event: Event) -> None:
        super().emit(event)
        _note(self.times, event)


def bare(rounds: int, model: str) -> dict[str, Any]:
    """Rates of the same session: with an emit that notes the time, and through the worker with a process reading."""
    workload = {"prompts": ["Tell me about the sea."], "max_new_tokens": TOKENS}
    experiment = Experiment.read({"rounds": 1, "model": model, "workload": workload, "lanes": {"A": {}}})
    rates: dict[str, list[float]] = {"bare": [], "observed": []}
    with _reader(experiment) as descriptor:
        worker = Observed(Sender(lines(descriptor)))
        command = _command(experiment)
        worker.turn({**command, "do": "prepare"})
        for number in range(rounds + 1):
            for name in sorted(rates, reverse=bool(number % 2)):
                rates[name].append(_rate(worker, command, experiment, name == "bare"))
        while not worker.sender.waiting.empty():
            time.sleep(0.1)
        time.sleep(0.1)  # the last event may be on its way still
    pairs = [seen / alone for alone, seen in zip(rates["bare"][1:], rates["observed"][1:], strict=True)]
    ratio, low, high = interval(pairs)
    print(f"Everything on against a bare loop: rate ratio {ratio:.4f} ({low:.4f} to {high:.4f}; {len(pairs)} pairs).")
    return rates


def _rate(worker: Observed, command: dict[str, Any], experiment: Experiment, alone: bool) -> float:
    worker.times.clear()
    if alone:
        plan = plan_for(experiment.lanes["A"], experiment.model, machine(), worker.session.architecture)
        worker.session.run(plan, experiment.workload, lambda event: _note(worker.times, event))
    else:
        worker.turn({**command, "do": "run"})
    return TOKENS / (worker.times[-1] - worker.times[0])


def _note(times: list[float], event: Event) -> None:
    if isinstance(event, Request | Step):
        times.append(event.t)


def _command(experiment: Experiment) -> dict[str, Any]:
    shown = experiment.to_dict()
    return {"model": experiment.model, "lane": shown["lanes"]["A"], "workload": shown["workload"]}


@contextmanager
def _reader(experiment: Experiment):
    """The descriptor of a pipe that another process reads as the page's process does."""
    ends = os.pipe()
    command = [sys.executable, "-c", READER, json.dumps(experiment.to_dict())]
    process = subprocess.Popen(command, stdin=ends[0], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    os.close(ends[0])
    try:
        yield ends[1]
        assert process.poll() is None, "the reader ended before the run did, so nothing was observed"
    finally:
        os.close(ends[1])
        process.kill()
        process.wait()


def slow_reader(pool: Pool, rounds: int) -> dict[str, list[float]]:
    """In turns, on the simulated timetable, whose true rate is known: a reader that sleeps 5 ms an event."""
    workload = {"prompts": ["go"], "max_new_tokens": 300}
    lane = {"backend": {"name": "simulated", "ttft_ms": 20, "tpot_ms": 1}}
    experiment = Experiment.read({"rounds": 1, "workload": workload, "lanes": {"A": lane}})
    rates: dict[float, list[float]] = {0.0: [], SLOW_S: []}
    for number in range(rounds):
        for pause in sorted(rates, reverse=bool(number % 2)):
            found = measure(experiment, pool, pause)
            rates[pause].append(found["lanes"][0]["metrics"]["output_tok_per_s"])
    ratios = [slow / fast for fast, slow in zip(*rates.values(), strict=True)]
    print(
        f"A reader that sleeps 5 ms an event: rate ratio {median(ratios):.4f} ({min(ratios):.4f} to {max(ratios):.4f})."
    )
    return {str(pause): values for pause, values in rates.items()}
