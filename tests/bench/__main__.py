"""`python -m tests.bench [CASE]...`: experiments of interleaved pairs; prints medians with their spread."""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from engine.event import Record
from engine.measure.machine import machine
from engine.measure.result import result
from engine.run.pool import Pool
from engine.run.runner import Run
from engine.spec import Experiment

PROMPT = (
    "The lighthouse stands on a rock at the mouth of the bay. Every evening the keeper climbs the steps to the lamp, "
    "trims the wick, and lights it. Every morning he climbs them again to put it out. Ships far out at sea have "
    "watched for that light through fog and storm for more than two"
)
WORKLOAD = {"prompts": [PROMPT], "max_new_tokens": 64, "chat": False}
BFLOAT16 = {"precision": {"dtype": "bfloat16"}}


def lanes(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    return {"workload": WORKLOAD, "lanes": {"A": first, "B": second}}


CASES: dict[str, dict[str, Any]] = {
    "own loop against generate, float32": lanes(
        {"backend": "generate", "opts": {"precision": {"dtype": "float32"}}},
        {"opts": {"precision": {"dtype": "float32"}}},
    ),
    "own loop against generate, bfloat16": lanes({"backend": "generate", "opts": BFLOAT16}, {"opts": BFLOAT16}),
    "compiled step against generate, bfloat16": lanes(
        {"backend": "generate", "opts": BFLOAT16}, {"opts": {**BFLOAT16, "torch_compile": {}}}
    ),
    "compiled step, autotuned, against generate, bfloat16": lanes(
        {"backend": "generate", "opts": BFLOAT16}, {"opts": {**BFLOAT16, "torch_compile": {"mode": "max-autotune"}}}
    ),
    "nf4 against float32": lanes({}, {"opts": {"bitsandbytes": {"kind": "nf4"}}}),
    "int8 against float32": lanes({}, {"opts": {"bitsandbytes": {"kind": "int8"}}}),
    "static against dynamic cache": lanes({}, {"opts": {"kv_cache": {"kind": "static"}}}),
    "no cache against dynamic cache": lanes({}, {"opts": {"kv_cache": {"kind": "off"}}}),
    "one thread against all": lanes({}, {"opts": {"threads": {"count": 1}}}),
}


def measure(experiment: Experiment, pool: Pool, pause_s: float = 0.0) -> dict[str, Any]:
    """Run an experiment and fold it; `pause_s` is slept after every event, as a slow reader would."""
    records: list[Record] = []
    for record in Run(experiment, pool).records():
        records.append(record)
        time.sleep(pause_s)
    return result(experiment, machine().to_dict(), records)


def row(name: str, found: dict[str, Any]) -> str:
    """One line of the table: TPOT of both lanes, the ratio with its spread, and what compiling cost."""
    first, second = found["lanes"]
    if not (first["rounds"] and second["rounds"]):
        return f"| {name} | failed: {first['why'] or second['why']} |"
    times = [[turn["tpot_ms"] for turn in lane["rounds"]] for lane in (first, second)]
    ratios = [mine / other for other, mine in zip(*times, strict=True)]
    verdict = next(v for v in found["verdicts"] if v["metric"] == "tpot_ms")
    compiled = second["phases"]["compile_s"]
    saved = median(times[0]) - median(times[1])
    paid = f"{compiled:.0f} s, paid back after {compiled * 1000 / saved:,.0f} tokens" if compiled and saved > 0 else "–"
    cells = [
        name, f"{median(times[0]):.2f}", f"{median(times[1]):.2f}", f"{verdict['ratio']:.3f}",
        f"{min(ratios):.3f} to {max(ratios):.3f}", f"{verdict['low']:.3f} to {verdict['high']:.3f}",
        f"{1 / verdict['ratio']:.2f}×", verdict["word"], paid, str(second["equality"]["identical"]),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def observer(pool: Pool, rounds: int) -> str:
    """The same lane read at full pace and by a reader that sleeps 5 ms an event, in turns."""
    workload = {"prompts": ["go"], "max_new_tokens": 300}
    lane = {"backend": {"name": "simulated", "ttft_ms": 20, "tpot_ms": 1}}
    experiment = Experiment.read({"rounds": 1, "workload": workload, "lanes": {"A": lane}})
    rates: dict[float, list[float]] = {0.0: [], 0.005: []}
    for number in range(rounds):
        for pause in sorted(rates, reverse=bool(number % 2)):
            found = measure(experiment, pool, pause)
            rates[pause].append(found["lanes"][0]["metrics"]["output_tok_per_s"])
    ratios = [slow / fast for fast, slow in zip(rates[0.0], rates[0.005], strict=True)]
    return (
        f"A reader that sleeps 5 ms an event: rate ratio {median(ratios):.4f} ({min(ratios):.4f} to {max(ratios):.4f})."
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("cases", nargs="*", help="beginnings of case names; all of them when none is given")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--json", type=Path, default=Path(tempfile.gettempdir()) / "pitlane-bench.json")
    parsed = parser.parse_args()
    chosen = [name for name in CASES if not parsed.cases or name.startswith(tuple(parsed.cases))]
    pool, kept = Pool(), {}
    print("| case (B against A) | TPOT A, ms | TPOT B, ms | ratio | pairs from, to | 95 % interval | speed | verdict "
          "| compile | same tokens |\n|---|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for name in chosen:
        experiment = Experiment.read({**CASES[name], "rounds": parsed.rounds, "model": parsed.model})
        kept[name] = measure(experiment, pool)
        print(row(name, kept[name]), flush=True)
    print("\n" + observer(pool, parsed.rounds))
    print(f"{machine().summary()}, {parsed.model}, {parsed.rounds} interleaved pairs; all figures in {parsed.json}")
    parsed.json.write_text(json.dumps(kept, indent=1), "utf-8")
    pool.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
