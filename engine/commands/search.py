"""Search for the best configuration within limits, with few runs."""

import argparse

from engine.commands import ERR, OWNER, assignments, check_file, deliver, json_file
from engine.run.jobs import Jobs
from engine.run.kinds import KINDS
from engine.run.marks import SPEED
from engine.run.search import BUDGET, Limit, Search
from engine.run.search_space import given
from engine.run.store import Store
from engine.run.studies import Studies
from engine.run.sweep import Axis
from engine.study_console import chosen, follow, table

PRESET = "does-16-bit-pay"
"""Its first lane is a model with nothing switched on, and its workload one short question."""
ROUNDS = 2


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", nargs="?", default=PRESET, help="whose workload is used (default %(default)s)")
    parser.add_argument("--lane", help="the lane to begin with (default: the first)")
    parser.add_argument("--model", help="another model than the preset's")
    parser.add_argument("--limit", action="append", default=[], dest="limits", metavar="LIMIT",
                        help="what must hold, for instance 'kl<=0.02', 'peak<=1GB' or 'ttft<=500ms'")  # fmt: skip
    parser.add_argument("--over", action="append", default=[], metavar="ADDRESS=VALUES",
                        help="what may change, the lane's own value first (default: everything)")  # fmt: skip
    parser.add_argument("--best", default=SPEED, metavar="FIGURE", help="what to make best (default %(default)s)")
    parser.add_argument("--budget", type=int, default=BUDGET, help="runs at most (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed proposes in another order")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of every run (default %(default)s)")
    assignments(parser, "ADDRESS", "workload.max_new_tokens=32")
    json_file(parser)


def do(parsed: argparse.Namespace) -> int:
    """Search, show the progress on stderr, and print what was measured and what is best."""
    search = _search(parsed)
    check_file(parsed.json)
    jobs = Jobs(Store())
    try:
        studies = Studies(jobs, KINDS)
        view = follow(studies, studies.start(search, OWNER), ERR)
    finally:
        jobs.close()
    deliver(view, parsed.json, table(view))
    return 0 if view["state"] == "finished" and view["best"] is not None else 1


def _search(parsed: argparse.Namespace) -> Search:
    changes = [*parsed.assignments, f"rounds={parsed.rounds}"]
    changes += [f"model={parsed.model}"] if parsed.model else []
    experiment = chosen(parsed.preset, changes, [parsed.lane] if parsed.lane else [])
    choices = given([Axis.read(text) for text in parsed.over]) if parsed.over else None
    limits = [Limit.read(text) for text in parsed.limits]
    return Search(experiment, limits, choices, parsed.best, parsed.budget, parsed.seed)
