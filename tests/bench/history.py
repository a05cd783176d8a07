"""A history of 10,000 runs: how long it takes to open, to list, to search and to compare (limits: 100 ms and 1 s)."""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from engine.bench.measuring import heading, line
from engine.export import copy
from engine.measure.comparison import compare
from engine.run.columns import columns
from engine.run.pool import Pool
from engine.run.store import Store
from tests.engine.runs import experiment, keep

RUNS = 10_000
TOKENS, ROUNDS = 64, 8
LIMITS = {"list the newest 50": 0.1, "list all": 0.1, "compare 8 lanes of 4 runs": 1.0}
"""Seconds."""


@dataclass(frozen=True)
class Written:
    """Records as the database keeps them: put into words once, and not ten thousand times."""

    text: str

    def line(self) -> str:
        return self.text


def run(pool: Pool, rounds: int, model: str, cases: list[str]) -> dict[str, Any]:
    """Each case `rounds` times; the median and the slowest. No model runs, so `pool` and `model` are not used."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.db"
        ids = fill(path)
        store = Store(path)
        print(f"{len(ids):,} runs in {path.stat().st_size / 1e6:,.0f} MB\n")
        print(heading("What", "Median, ms", "Slowest, ms", "Limit, ms"))
        found = {name: _timed(name, act, rounds) for name, act in acts(store, path, ids).items()}
        store.close()
    return found


def acts(store: Store, path: Path, ids: list[str]) -> dict[str, Callable[[], Any]]:
    """What is timed, by its name."""
    return {
        "open": lambda: Store(path).close(),
        "list the newest 50": lambda: store.history("me"),
        "list all": lambda: store.history("me", limit=RUNS),
        "list the newest 50 of everybody": lambda: store.history(),
        "search two words that match nothing": lambda: store.history("me", words="no such"),
        "look at one run": lambda: store.run(ids[RUNS // 2]),
        "compare 8 lanes of 4 runs": lambda: compare(columns(store, ids[:: RUNS // 4][:4])),
    }


def fill(path: Path) -> list[str]:
    """One recorded run many times over, under ids and titles of their own, each with its events; the ids."""
    store = Store(path)
    keep(store, "0" * 32, experiment(rounds=ROUNDS, tokens=TOKENS, opts={"prompt_lookup": {}}))
    kept, said = store.run("0" * 32), store.records("0" * 32)
    row = copy.entry(kept, said)
    row = {**row, **{name: json.dumps(row[name]) for name in copy.PARTS}, "owner": "me"}
    del row["records"]
    ids = [f"{number:032x}" for number in range(1, RUNS)]
    written = [Written("\n".join(record.line() for record in said))]
    for number, run in enumerate(ids):
        store.take_in({**row, "id": run, "title": f"Race {number}", "created": row["created"] - number}, written)
    store.close()
    return ["0" * 32, *ids]


def _timed(name: str, act: Callable[[], Any], rounds: int) -> dict[str, float]:
    act()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - start)
    limit = f"{LIMITS[name] * 1000:.0f}" if name in LIMITS else "–"
    print(line(name, f"{median(seconds) * 1000:.1f}", f"{max(seconds) * 1000:.1f}", limit))
    return {"median_s": median(seconds), "slowest_s": max(seconds)}
