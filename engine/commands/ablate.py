"""Find out what each optimization of a lane contributes, alone and together."""

import argparse

from engine.commands import ERR, OWNER, assignments, check_file, deliver, json_file
from engine.measure.ablation import MOST
from engine.run.ablate import PASSES, Ablation
from engine.run.jobs import Jobs
from engine.run.kinds import KINDS
from engine.run.store import Store
from engine.run.studies import Studies
from engine.study_console import chosen, contributions, follow


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", help="a name from presets/, or a TOML file")
    parser.add_argument("--lane", help="the lane whose optimizations are switched (default: the last)")
    parser.add_argument("--toggle", action="append", default=[], dest="toggles",
                        help=f"one of its optimizations, up to {MOST} (default: all that are on)")  # fmt: skip
    assignments(parser, "ADDRESS", "workload.max_new_tokens=32")
    parser.add_argument("--passes", type=int, default=PASSES, help="turns of every combination (default %(default)s)")
    json_file(parser)


def do(parsed: argparse.Namespace) -> int:
    """Measure every combination in passes, and print what each optimization contributes."""
    experiment = chosen(parsed.preset, parsed.assignments, [parsed.lane] if parsed.lane else None)
    ablation = Ablation(experiment, parsed.toggles, parsed.passes)
    check_file(parsed.json)
    jobs = Jobs(Store())
    try:
        studies = Studies(jobs, KINDS)
        view = follow(studies, studies.start(ablation, OWNER), ERR)
    finally:
        jobs.close()
    deliver(view, parsed.json, contributions(view))
    return 0 if view["state"] == "finished" else 1
