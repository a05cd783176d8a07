"""Continuous against static batching on the same Poisson arrivals, at three rates."""

from typing import Any

from engine.bench.measuring import faults, heading, line, measure, middle, ratio
from engine.bench.texts import SEVERAL
from engine.run.pool import Pool
from engine.spec import Experiment

RATES = (1.0, 2.0, 4.0)
"""Requests a second: well below, near and above what eight places serve on two cores."""
SLOTS = 8
LANES = {
    "static": {"opts": {"batching": {"size": SLOTS}}},
    "continuous": {"opts": {"continuous_batching": {"slots": SLOTS}}},
    "transformers'": {"backend": "generate", "opts": {"continuous_batching": {"slots": SLOTS}}},
}
FIGURES = ("output_tok_per_s", "ttft_ms", "ttft_p90_ms", "queue_ms", "tpot_ms", "goodput_per_s", "in_flight")


def run(pool: Pool, rounds: int, model: str, only: list[str]) -> dict[str, Any]:
    """Print one row for each lane and rate (`only`: these rates); the ratio is against static batching."""
    print(heading("requests/s", "lane", *FIGURES, "tok/s ratio to static", "note"))
    kept = {}
    for rate in RATES:
        if only and str(rate) not in only:
            continue
        workload = {
            "prompts": SEVERAL, "requests": 12, "max_new_tokens": 40, "spread": 0.8, "arrivals": "poisson",
            "rate": rate, "ttft_limit_ms": 2000.0, "tpot_limit_ms": 200.0,
        }  # fmt: skip
        found = measure(Experiment.read({"rounds": rounds, "model": model, "workload": workload, "lanes": LANES}), pool)
        kept[str(rate)] = found
        for number, lane in enumerate(found["lanes"]):
            pair = {**found, "lanes": [found["lanes"][0], lane],
                    "verdicts": [v for v in found["verdicts"] if v["lane"] == lane["name"]]}  # fmt: skip
            figures = [middle(lane, name, 2) for name in FIGURES]
            against = ratio(pair, "output_tok_per_s") if number else "1"
            print(line(str(rate), lane["name"], *figures, against, faults(pair)), flush=True)
    return kept
