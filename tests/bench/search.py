"""How few runs a search needs: a real grid is measured once, searches are replayed against it, and one goes live."""

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from engine.bench.measuring import DASH, heading, line
from engine.measure.pareto import AXES
from engine.run.jobs import Jobs
from engine.run.kinds import KINDS
from engine.run.marks import SPEED
from engine.run.pool import Pool
from engine.run.search import Limit, Search
from engine.run.search_space import given
from engine.run.store import Store
from engine.run.studies import Studies
from engine.run.study import REFUSED, Entry, Outcome, Study
from engine.run.sweep import Axis, Sweep
from engine.spec import Experiment

TEXT = (
    "Repeat word for word: the keeper climbs the steps to the lamp, trims the wick, lights it, and climbs down again."
)
OVER = (
    "lane.opts.precision.dtype=auto,bfloat16",
    'lane.opts.torchao=false,{"kind":"int8-weight-only"}',
    "lane.opts.merged_projections=false,true",
    'lane.opts.threads=false,{"count":1}',
    'lane.opts.prompt_lookup=false,{"guesses":4}',
)
GOALS: dict[str, tuple[str, tuple[str, ...]]] = {
    "fastest": (SPEED, ()),
    "fastest in 900 MB, KL up to 0.02": (SPEED, ("peak<=900MB", "kl<=0.02")),
    "fastest in 1 GB, KL up to 0.02, first token in 500 ms": (SPEED, ("peak<=1GB", "kl<=0.02", "ttft<=500ms")),
    "least memory, KL up to 0.02": ("peak", ("kl<=0.02",)),
    "first token soonest": ("ttft_ms", ("kl<=0.02",)),
}
SEEDS = 20
PASSES = 3
TOKENS = 32


def run(pool: Pool, rounds: int, model: str, only: list[str]) -> dict[str, Any]:
    """The recorded figure of a configuration is what a replayed search is told; only the live one measures again.

    The grid is measured in passes, and a configuration's figure is its median: drift falls on all alike.
    """
    workload = {"prompts": [TEXT], "max_new_tokens": TOKENS}
    experiment = Experiment.read({"model": model, "rounds": 1, "workload": workload, "lanes": {"A": {}}})
    axes = [Axis.read(text) for text in OVER]
    with tempfile.TemporaryDirectory() as folder:
        jobs = Jobs(Store(Path(folder) / "history.db"), pool)
        began = time.perf_counter()
        grids = [conducted(jobs, Sweep(experiment, axes)) for _ in range(min(rounds, PASSES))]
        known = medians(grids)
        able = [found for found in known.values() if found.state == "done"]
        budget, spent = len(able) // 3, (time.perf_counter() - began) / len(grids)
        print(f"Grid: {len(known)} points, {len(able)} of which can run; a search may make {budget} runs.")
        print(f"{len(grids)} passes of {spent:.0f} s; {sum(o.spoiled for o in able)} points were disturbed in all.\n")
        print(heading("goal", "best of the grid", "found / best, median", "worst of seeds", "within 3 %", "runs"))
        kept = {name: _replayed(name, experiment, axes, known, budget) for name in GOALS}
        live = _live(jobs, experiment, axes, known, budget)
        jobs.close()
    labels = {key(entry): entry.point.label for entry in grids[0].values()}
    points = [
        {"label": labels[one], "state": o.state, "spoiled": o.spoiled, **o.lanes.get("A", {})}
        for one, o in known.items()
    ]
    return {"points": points, "budget": budget, "replayed": kept, "live": live}


def conducted(jobs: Jobs, study: Study) -> dict[int, Entry]:
    """Run a study to its end and return its points."""
    studies = Studies(jobs, KINDS)
    id = studies.start(study, "bench")
    while studies.state(id) == "running":
        time.sleep(0.2)
    return dict(studies.active[id].snapshot())


def medians(grids: list[dict[int, Entry]]) -> dict[str, Outcome]:
    """What came of each configuration over all passes; withdrawn rounds count where a configuration has no other."""
    several: dict[str, list[Outcome]] = {}
    for entry in [entry for grid in grids for entry in grid.values()]:
        several.setdefault(key(entry), []).append(entry.outcome)
    return {one: _median([o for o in some if o.state == "done"]) or some[0] for one, some in several.items()}


def _median(some: list[Outcome]) -> Outcome | None:
    if not some:
        return None
    clean = [o for o in some if not o.spoiled] or some
    values = {name: [v for o in clean if (v := o.value(name)) is not None] for name in AXES}
    figures = {name: median(found) if found else None for name, found in values.items()}
    return Outcome("done", "", None, {"A": figures}, spoiled=all(o.spoiled for o in some))


def key(entry: Entry) -> str:
    """What makes two points the same configuration."""
    (lane,) = entry.point.experiment.lanes.values()
    return lane.model_dump_json()


def replayed(search: Search, known: dict[str, Outcome]) -> dict[int, Entry]:
    """A search that is told the grid's figures instead of measuring."""
    entries: dict[int, Entry] = {}
    while (found := search.following(entries)) is not None:
        number, point = found
        entry = Entry(number, point, Outcome("running"))
        entries[number] = Entry(number, point, known[key(entry)])
    return entries


def _search(name: str, experiment: Experiment, axes: list[Axis], budget: int, seed: int) -> Search:
    axis, limits = GOALS[name]
    return Search(experiment, [Limit.read(text) for text in limits], given(axes), axis, budget, seed)


def _best(search: Search, known: dict[str, Outcome]) -> float | None:
    """The grid's best within the limits; None where nothing in it keeps them."""
    kept = [o.value(search.axis) for o in known.values() if o.state == "done" and max(search.missed(o)) <= 0]
    return (max if AXES[search.axis].better == "higher" else min)(kept, default=None)


def _reached(search: Search, entries: dict[int, Entry]) -> tuple[float | None, int]:
    """The best figure that a search found, and how many runs it made."""
    best = search.summary(entries)["best"]
    runs = sum(entry.outcome.state != REFUSED for entry in entries.values())
    return (None if best is None else entries[best].outcome.value(search.axis)), runs


def _share(search: Search, value: float | None, best: float) -> float:
    """1 is as good as the grid's best; 0 where nothing was found."""
    if value is None:
        return 0.0
    return value / best if AXES[search.axis].better == "higher" else best / value


def _replayed(name: str, experiment: Experiment, axes: list[Axis], known: dict, budget: int) -> dict[str, Any]:
    shares, counts = [], []
    best = _best(_search(name, experiment, axes, budget, 0), known)
    if best is None:
        print(line(name, "nothing keeps these limits", *[DASH] * 4))
        return {"best": None}
    for seed in range(SEEDS):
        search = _search(name, experiment, axes, budget, seed)
        value, runs = _reached(search, replayed(search, known))
        shares.append(_share(search, value, best))
        counts.append(runs)
    near = sum(share >= 0.97 for share in shares)
    unit = AXES[GOALS[name][0]].unit
    print(line(name, f"{best:.4g} {unit}", f"{median(shares):.3f}", f"{min(shares):.3f}", f"{near} of {SEEDS}",
               str(max(counts))))  # fmt: skip
    return {"best": best, "shares": shares, "runs": counts}


def _live(jobs: Jobs, experiment: Experiment, axes: list[Axis], known: dict, budget: int) -> dict[str, Any]:
    name = next(iter(GOALS))
    search = _search(name, experiment, axes, budget, seed=0)
    entries = conducted(jobs, search)
    found = search.summary(entries)["best"]
    if found is None:
        print(f"\nLive, {name}: no run of {len(entries)} came to an end.")
        return {"runs": len(entries)}
    best = entries[found]
    recorded, top = known[key(best)].value(search.axis), _best(search, known)
    value, runs = _reached(search, entries)
    print(f"\nLive, {name}: {best.point.label}, {value:.1f} tok/s in {runs} runs; in the grid it had {recorded:.1f}, "
          f"{recorded / top:.3f} of the best ({top:.1f}).")  # fmt: skip
    return {"label": best.point.label, "value": value, "recorded": recorded, "best": top, "runs": runs}
