"""How often a verdict is wrong on the real engine: lanes that are equal, and the same lanes with a known difference."""

import math
import time
from collections import Counter
from statistics import median, stdev
from typing import Any

from engine.bench.measuring import heading, line, measure
from engine.measure.metrics import METRICS
from engine.measure.verdict import judge
from engine.run.pool import Pool
from engine.spec import Experiment

EXPERIMENTS = 100
TOKENS = 8
FACTORS = (1.0, 1.05, 1 / 1.03)
"""What lane B's true speed is, times lane A's: equal, 5 % faster, 3 % slower."""
COUNTED = {"pairs": "as a run does", "all": "withdrawn rounds too"}
HEADLINE = METRICS["output_tok_per_s"]


def run(pool: Pool, rounds: int, model: str, only: list[str]) -> dict[str, Any]:
    """`only`: how many experiments, 100 by default. Two workers of one configuration, as the runner interleaves them.

    The truth is known: nothing differs. For a known difference lane B's times are divided by exactly that factor
    afterwards, so that the noise is the machine's and only the difference is made.
    """
    count, start = int(only[0]) if only else EXPERIMENTS, time.perf_counter()
    workload = {"prompts": ["Name three colours."], "max_new_tokens": TOKENS}
    experiment = Experiment.read({"rounds": rounds, "model": model, "workload": workload, "lanes": {"A": {}, "B": {}}})
    found = [_series(measure(experiment, pool)) for _ in range(count)]
    table = [_row(factor, found, which) for which in COUNTED for factor in FACTORS]
    words = ("faster", "slower", "same", "cannot tell")
    print(heading("lane B is truly", "counted", "experiments", *words, "interval holds truth"))
    for row in table:
        print(line(*map(str, row.values())), flush=True)
    print(_noise(found, time.perf_counter() - start))
    return {"series": found, "table": table}


def _series(found: dict[str, Any]) -> dict[str, Any]:
    """One experiment's pairs (B, A) in tokens per second: those of its verdict, and all that were asked for."""
    first, second = found["lanes"]
    turns = list(zip(second["rounds"], first["rounds"], strict=True))
    pairs = [(b[HEADLINE.name], a[HEADLINE.name]) for b, a in turns]
    kept = [pair for pair, (b, a) in zip(pairs, turns, strict=True) if not a["withdrawn"] and not b["withdrawn"]]
    asked = found["experiment"]["rounds"]
    return {"pairs": kept, "all": pairs[:asked], "withdrawn": len(turns) - len(kept), "rounds": len(turns)}


def _row(factor: float, found: list[dict[str, Any]], which: str) -> dict[str, Any]:
    verdicts = [judge("B", "A", HEADLINE, [(b * factor, a) for b, a in one[which]]) for one in found]
    words = Counter(verdict.word for verdict in verdicts)
    known = [verdict for verdict in verdicts if verdict.low and verdict.high]
    held = sum(verdict.low <= factor <= verdict.high for verdict in known)
    return {
        "truth": f"{factor:.3f}× as fast", "counted": COUNTED[which], "experiments": len(verdicts),
        **{word: words[word] for word in ("faster", "slower", "same", "cannot tell")},
        "covered": f"{held} of {len(known)}",
    }  # fmt: skip


def _noise(found: list[dict[str, Any]], seconds: float) -> str:
    logs = [[math.log(b / a) for b, a in one["all"]] for one in found if len(one["all"]) > 1]
    scatter, bias = median(map(stdev, logs)), math.exp(sum(map(sum, logs)) / sum(map(len, logs)))
    gone, taken = (sum(one[key] for one in found) for key in ("withdrawn", "rounds"))
    return (
        f"\nA pair scatters by {scatter:.1%} (median of the experiments); lane B over lane A in all: {bias:.4f}. "
        f"{gone} of {taken} rounds were withdrawn. {seconds / 60:.1f} minutes."
    )
