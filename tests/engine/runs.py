"""Recorded runs without an engine: a known timetable as records, and a history full of them."""

import random
from pathlib import Path
from typing import Any

from engine.event import Finished, Phase, Record, Request, Step
from engine.measure.machine import machine
from engine.measure.result import result
from engine.run.store import Store
from engine.spec import Experiment

STEP_S = 0.01
"""Lane B takes half as long."""


def experiment(title: str = "A race", rounds: int = 2, tokens: int = 8, **lane: Any) -> Experiment:
    """Two lanes; `lane` is what B has that A has not."""
    workload = {"prompts": ["Say something."], "max_new_tokens": tokens}
    return Experiment.read({"title": title, "rounds": rounds, "workload": workload, "lanes": {"A": {}, "B": lane}})


def records(made: Experiment, text: str = "word ") -> list[Record]:
    """What the lanes of an experiment say: a token in every step."""
    found = [Record(lane, None, Phase(0.0, "load")) for lane in range(len(made.lanes))]
    for number in range(made.rounds):
        for lane in range(len(made.lanes)):
            found += _turn(lane, number, made.workload.max_new_tokens, text)
    return found


def _turn(lane: int, number: int, tokens: int, text: str) -> list[Record]:
    start, step = 100.0 * number, STEP_S / (lane + 1)
    events = [Request(start, 0, 5)]
    events += [Step(start + step * (place + 1), (0,), ((place,),), ((text,),), cached=place) for place in range(tokens)]
    return [
        Record(lane, number, event) for event in (*events, Finished(start + step * (tokens + 1), {"dtype": "float32"}))
    ]


def keep(store: Store, run: str, made: Experiment, owner: str = "me", text: str = "word ") -> None:
    """Put a finished run into a history."""
    said = records(made, text)
    store.add(run, owner, made, machine().to_dict(), "running")
    for first in range(0, len(said), 10):
        store.append(run, first, said[first : first + 10])
    store.finish(run, "finished", result(made, machine().to_dict(), said))


def filled(path: Path, count: int, seed: int = 0) -> list[str]:
    """A history of so many runs; their ids."""
    draw, store = random.Random(seed), Store(path)
    ids = [f"{draw.getrandbits(128):032x}" for _ in range(count)]
    for number, run in enumerate(ids):
        keep(store, run, experiment(f"Race {number}"))
    store.close()
    return ids
