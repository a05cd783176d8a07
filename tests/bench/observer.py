"""Whether being watched costs anything: the same lane read at full pace and by a slow reader."""

from statistics import median
from typing import Any

from engine.run.pool import Pool
from engine.spec import Experiment
from tests.bench.measuring import measure

SLOW_S = 0.005


def run(pool: Pool, rounds: int, model: str, only: list[str]) -> dict[str, Any]:
    """In turns, on the simulated timetable, whose true rate is known."""
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
    return {"rates": {str(pause): values for pause, values in rates.items()}}
