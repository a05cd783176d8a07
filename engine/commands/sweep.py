"""Measure a grid of configurations, one run a point.

The sweep goes on with `--resume` after it was stopped or killed: points that were measured are kept.
"""

import argparse
from datetime import datetime

from engine.commands import ERR, OWNER, assignments, check_file, deliver, json_file, listing
from engine.refusal import Refusal
from engine.run.jobs import Jobs
from engine.run.kinds import KINDS
from engine.run.store import Store
from engine.run.studies import Studies
from engine.run.study_table import StudyTable
from engine.run.sweep import Axis, Sweep
from engine.run.sweep_ray import Cluster
from engine.study_console import chosen, follow, table

ROUNDS = 2
"""Turns of a point where nothing else is said: its figure is their median."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", nargs="?", help="a name from presets/, or a TOML file")
    parser.add_argument("--over", action="append", default=[], metavar="ADDRESS=VALUES",
                        help="what to vary, for instance lane.opts.prompt_lookup.guesses=1,2,4 or 1..8")  # fmt: skip
    parser.add_argument("--lane", action="append", default=[], help="keep only this lane of the preset")
    assignments(parser, "ADDRESS", "workload.max_new_tokens=32")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of every point (default %(default)s)")
    parser.add_argument("--resume", metavar="ID", help="go on with a sweep that was stopped")
    parser.add_argument("--ray", metavar="ADDRESS", help="measure on a Ray cluster, for instance 10.0.0.5:6379")
    parser.add_argument("--list", action="store_true", help="list earlier sweeps, ablations and searches")
    json_file(parser)


def do(parsed: argparse.Namespace) -> int:
    """Measure every point, show the progress on stderr, and print the table on stdout."""
    store = Store()
    if parsed.list:
        return _list(parsed, store)
    sweep = None if parsed.resume else _sweep(parsed)
    check_file(parsed.json)
    place = Cluster(parsed.ray) if parsed.ray else None
    jobs = Jobs(store)
    try:
        studies = Studies(jobs, KINDS)
        id = studies.start(sweep, OWNER, place) if sweep else studies.resume(parsed.resume, place)
        view = follow(studies, id, ERR)
    finally:
        jobs.close()
        if place:
            place.close()
    deliver(view, parsed.json, table(view))
    return 0 if view["state"] == "finished" else 1


def _sweep(parsed: argparse.Namespace) -> Sweep:
    if not parsed.preset:
        raise Refusal("No preset is named.", "python -m engine presets lists them.")
    experiment = chosen(parsed.preset, [*parsed.assignments, f"rounds={parsed.rounds}"], parsed.lane)
    sweep = Sweep(experiment, [Axis.read(text) for text in parsed.over])
    return sweep if parsed.ray else sweep.possible_here()


def _list(parsed: argparse.Namespace, store: Store) -> int:
    rows = StudyTable(store).listing()
    short = [{"id": row["id"][:8], "when": f"{datetime.fromtimestamp(row['created']):%Y-%m-%d %H:%M}",
              "kind": row["kind"], "state": row["state"], "title": row["title"], "sentence": row["sentence"]}
             for row in rows]  # fmt: skip
    return listing(parsed, rows if parsed.json else short, "" if rows else "No sweep has run yet.")
