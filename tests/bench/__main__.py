"""`python -m tests.bench [SUITE] [CASE]...`: interleaved pairs; prints medians with their spread."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from engine.measure.machine import machine
from engine.run.pool import Pool
from tests.bench import (
    alone,
    arrivals,
    conditions,
    equality,
    fit,
    history,
    ladder,
    llamacpp,
    observer,
    packed,
    page,
    search,
    share,
    verdicts,
)

ALL = (
    alone, ladder, arrivals, packed, observer, conditions, verdicts, search, fit, history, page, llamacpp, share,
    equality,
)  # fmt: skip
SUITES = {suite.__name__.rpartition(".")[2]: suite.run for suite in ALL}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("suite", nargs="?", choices=["all", *SUITES], default="all")
    parser.add_argument(
        "cases",
        nargs="*",
        help="names of cases (ladder: their beginnings; arrivals: rates); all of them when none is given",
    )
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--json", type=Path, default=Path(tempfile.gettempdir()) / "pitlane-bench.json")
    parsed = parser.parse_args()
    pool, kept = Pool(), {}
    for name, run in SUITES.items():
        if parsed.suite in ("all", name):
            print(f"\n{name}: {run.__module__ and sys.modules[run.__module__].__doc__}\n")
            kept[name] = run(pool, parsed.rounds, parsed.model, parsed.cases)
    print(f"\n{machine().summary()}, {parsed.model}, {parsed.rounds} interleaved pairs; all figures in {parsed.json}")
    parsed.json.write_text(json.dumps(kept, indent=1), "utf-8")
    pool.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
