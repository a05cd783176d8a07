"""Whether a disturbed turn is withdrawn and a quiet one is not: turns alone, and beside a program that fills a core."""

import subprocess
import sys
from statistics import median
from typing import Any

from engine.bench.measuring import heading, line
from engine.event import Conditions
from engine.measure.withdrawal import withdrawn
from engine.run.pool import Pool
from engine.run.runner import Run
from engine.spec import Experiment

HOG = [sys.executable, "-c", "while True: pass"]
TURNS = 10


def run(pool: Pool, rounds: int, model: str, only: list[str]) -> dict[str, Any]:
    """`rounds` blocks of ten turns, in turn quiet and disturbed."""
    kept: dict[str, list[dict[str, Any]]] = {"quiet": [], "one core filled": []}
    for number in range(rounds):
        for name in sorted(kept, reverse=bool(number % 2)):
            kept[name] += _turns(pool, model, disturbed=name != "quiet")
    print(heading("machine", "turns", "withdrawn", "waited, cores (median, range)", "others, cores (median, range)"))
    for name, turns in kept.items():
        gone = sum(turn["withdrawn"] is not None for turn in turns)
        print(line(name, str(len(turns)), f"{gone} ({gone / len(turns):.1%})", *map(_spread, _figures(turns))))
    return kept


def _turns(pool: Pool, model: str, disturbed: bool) -> list[dict[str, Any]]:
    workload = {"prompts": ["Name three colours."], "max_new_tokens": 24}
    experiment = Experiment.read({"rounds": TURNS, "model": model, "workload": workload, "lanes": {"A": {}}})
    hog = subprocess.Popen(HOG) if disturbed else None
    try:
        seen = [record.event for record in Run(experiment, pool).records() if isinstance(record.event, Conditions)]
    finally:
        if hog:
            hog.kill()
            hog.wait()
    return [
        {"seconds": one.seconds, "waited": one.waited, "others": one.others, "withdrawn": withdrawn(one)}
        for one in seen
    ]


def _figures(turns: list[dict[str, Any]]) -> list[list[float]]:
    names = ("waited", "others")
    return [[turn[name] / turn["seconds"] for turn in turns if turn[name] is not None] for name in names]


def _spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else "–"
