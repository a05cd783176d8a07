"""Run a preset or an experiment file."""

import argparse
import signal
from typing import Any

from engine.address import assign
from engine.commands import ERR, OWNER, assignments, check_file, deliver, json_file
from engine.console import Bars, follow, table
from engine.presets import preset
from engine.run.jobs import Jobs
from engine.run.store import Store
from engine.spec import Experiment


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", help="a name from presets/, or a TOML file")
    assignments(parser, "ADDRESS", "lanes.B.opts.kv_cache.kind=static")
    parser.add_argument("--rounds", type=int, help="turns of every lane (8 for a verdict, 1 for a quick look)")
    json_file(parser)


def do(parsed: argparse.Namespace) -> int:
    """Run, show bars on stderr, and print the table on stdout."""
    changes = list(parsed.assignments)
    if parsed.rounds is not None:
        changes.append(f"rounds={parsed.rounds}")
    experiment = Experiment.read(assign(preset(parsed.preset).to_dict(), changes))
    check_file(parsed.json)
    jobs = Jobs(Store())
    try:
        found = followed(jobs, jobs.submit(experiment, OWNER), experiment)
    finally:
        jobs.close()
    deliver(found, parsed.json, table(found))
    return 0 if all(lane["status"] == "finished" for lane in found["lanes"]) else 1


def followed(jobs: Jobs, run: str, experiment: Experiment) -> dict[str, Any]:
    """Show a job's bars until it ends; Ctrl-C stops it. Returns its result."""

    def going() -> bool:
        jobs.watch(run)
        return jobs.state(run) in ("queued", "running")

    bars = Bars(experiment, ERR)
    try:
        follow(bars, lambda start: jobs.records(run, start), going)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        jobs.cancel(run, OWNER)
        follow(bars, lambda start: jobs.records(run, start), going)
    if jobs.warning:
        ERR.print(jobs.warning, markup=False)
    return jobs.result(run)
