"""Every optimization alone against the plain loop in float32: losers stay in the table."""

from collections.abc import Iterator
from typing import Any

from engine.bench.measuring import faults, heading, line, measure, megabytes, middle, ratio
from engine.bench.texts import PLAIN, WORKLOADS
from engine.measure.machine import machine
from engine.refusal import Refusal
from engine.registry import optimizations
from engine.run.pool import Pool
from engine.spec import Experiment, plan_for
from tests.bench.quality import kl_of
from tests.engine.contract import Case, configurations, ids

TITLES = ("optimization", "workload", "TTFT A / B, ms", "TPOT A / B, ms", "TTFT ratio", "TPOT ratio", "tok/s ratio",
          "weights A / B, MB", "peak A / B, MB", "KL, top-1", "same tokens", "expected", "note")  # fmt: skip


def cases() -> Iterator[tuple[Case, str]]:
    """What can run here, and with an empty case why the others cannot."""
    for case in configurations():
        name, knobs = case
        opt = optimizations()[name](**knobs)
        if opt.always and not knobs:
            continue
        lane = Experiment.read({"workload": PLAIN, "lanes": {"B": {"opts": dict([case])}}}).lanes["B"]
        try:
            plan_for(lane, "smollm2-135m", machine())
            yield case, ""
        except Refusal as refusal:
            yield case, refusal.why


def run(pool: Pool, rounds: int, model: str, only: list[str]) -> dict[str, Any]:
    """Print the table; returns all figures by case."""
    print(heading(*TITLES))
    kept = {}
    for case, why in cases():
        label = ids(case)
        if only and label not in only:
            continue
        if why:
            print(line(label, *["–"] * (len(TITLES) - 2), f"not here: {why}"), flush=True)
            continue
        name, _ = case
        part = optimizations()[name]
        kind = name if name in WORKLOADS else part.group
        lanes = {"A": {}, "B": {"opts": dict([case])}}
        data = {"rounds": rounds, "model": model, "workload": WORKLOADS.get(kind, PLAIN), "lanes": lanes}
        kept[label] = found = measure(Experiment.read(data), pool)
        print(row(label, kind, case, found), flush=True)
    return kept


def row(label: str, kind: str, case: Case, found: dict[str, Any]) -> str:
    first, second = found["lanes"]
    part = optimizations()[case[0]]

    def both(metric: str) -> str:
        return f"{middle(first, metric)} / {middle(second, metric)}"

    expected = ", ".join(f"{metric} {way}" for metric, way in part.moves.items())
    compiled = second["phases"]["compile_s"]
    return line(
        label, kind if kind in WORKLOADS else "short prompt", both("ttft_ms"), both("tpot_ms"),
        ratio(found, "ttft_ms"), ratio(found, "tpot_ms"), ratio(found, "output_tok_per_s"),
        f"{megabytes(first, 'weights')} / {megabytes(second, 'weights')}",
        f"{megabytes(first, 'peak')} / {megabytes(second, 'peak')}",
        kl_of(case), str(second["equality"]["identical"]), expected,
        " ".join(filter(None, (f"compiled for {compiled:.0f} s." if compiled else "", faults(found)))),
    )  # fmt: skip
