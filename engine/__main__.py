"""The command line: run, lab, labs, models, optimizations, machine, presets, history, replay. Never imports gradio."""

import argparse
import json
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from engine import lab_console
from engine.address import assign
from engine.console import Bars, follow, replay, table
from engine.measure.machine import machine
from engine.models.catalogue import MODELS
from engine.presets import preset, presets
from engine.refusal import Refusal
from engine.registry import optimizations
from engine.run.jobs import Jobs
from engine.run.store import Store
from engine.spec import Experiment

OWNER = "command line"
OUT, ERR = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False)


def main(arguments: list[str] | None = None) -> int:
    """0 when every lane finished, 1 when one did not, 2 for bad arguments."""
    parsed = _parser().parse_args(arguments)
    try:
        return parsed.do(parsed)
    except Refusal as refusal:
        ERR.print(f"{refusal.why} {refusal.hint}".strip(), markup=False, soft_wrap=True)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m engine", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = _command(commands, "run", run_preset, "run a preset or an experiment file", listing=False)
    run.add_argument("preset", help="a name from presets/, or a TOML file")
    run.add_argument("--set", action="append", default=[], metavar="ADDRESS=VALUE", dest="assignments",
                     help="change one address, for instance lanes.B.opts.kv_cache.kind=static")  # fmt: skip
    run.add_argument("--rounds", type=int, help="turns of every lane (8 for a verdict, 1 for a quick look)")
    run.add_argument("--json", metavar="FILE", help="write the result there (- is standard output)")
    lab = _command(commands, "lab", run_lab, "measure a lab's grid of points", listing=False)
    lab.add_argument("name", help="a lab's name, as python -m engine labs lists them")
    lab.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE", dest="assignments",
                     help="change one knob, for instance rows=16384")  # fmt: skip
    lab.add_argument("--json", metavar="FILE", help="write the result there (- is standard output)")
    listed = _command(commands, "labs", list_labs, "experiments with one technique, and their knobs")
    listed.add_argument("--history", action="store_true", help="list earlier results instead")
    _command(commands, "models", list_models, "models that can be named")
    parts = _command(commands, "optimizations", list_optimizations, "what a lane can switch on, and its knobs")
    parts.add_argument("--markdown", action="store_true", help="print the table of the README")
    _command(commands, "machine", show_machine, "what this machine is")
    _command(commands, "presets", list_presets, "experiments that ask a question")
    history = _command(commands, "history", list_history, "earlier runs, newest first")
    history.add_argument("--limit", type=int, default=20)
    again = _command(commands, "replay", replay_run, "race an earlier run again at real speed")
    again.add_argument("id", help="a run's id, or the beginning of it")
    return parser


def _command(commands: Any, name: str, do: Any, text: str, listing: bool = True) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(do=do)
    if listing:
        parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def run_preset(parsed: argparse.Namespace) -> int:
    """Run, show bars on stderr, and print the table on stdout."""
    assignments = list(parsed.assignments)
    if parsed.rounds is not None:
        assignments.append(f"rounds={parsed.rounds}")
    experiment = Experiment.read(assign(preset(parsed.preset).to_dict(), assignments))
    if parsed.json and parsed.json != "-":
        _check_writable(Path(parsed.json))
    jobs = Jobs(Store())
    try:
        found = _follow(jobs, jobs.submit(experiment, OWNER), experiment)
    finally:
        jobs.close()
    if parsed.json == "-":
        OUT.print_json(json.dumps(found))
    else:
        OUT.print(table(found), markup=False)
    if parsed.json and parsed.json != "-":
        Path(parsed.json).write_text(json.dumps(found, indent=1), "utf-8")
    return 0 if all(lane["status"] == "finished" for lane in found["lanes"]) else 1


def run_lab(parsed: argparse.Namespace) -> int:
    """Measure a lab, show its progress on stderr, and print its picture and its sentence on stdout."""
    lab = lab_console.lab(parsed.name, parsed.assignments)
    if parsed.json and parsed.json != "-":
        _check_writable(Path(parsed.json))
    found = lab_console.follow(lab, Store(), OWNER, ERR)
    if parsed.json == "-":
        OUT.print_json(json.dumps(found))
    else:
        OUT.print(lab_console.picture(found), markup=False)
    if parsed.json and parsed.json != "-":
        Path(parsed.json).write_text(json.dumps(found, indent=1), "utf-8")
    return 0 if found["status"] == "finished" else 1


def _check_writable(path: Path) -> None:
    """Before anything runs. Raises Refusal if the result cannot be written there."""
    try:
        path.open("a").close()
    except OSError as error:
        raise Refusal(f"{path} cannot be written: {error.strerror}.", "Name a file in a folder that exists.") from None


def _follow(jobs: Jobs, run: str, experiment: Experiment) -> dict[str, Any]:
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


def list_labs(parsed: argparse.Namespace) -> int:
    if parsed.history:
        rows = Store().labs()
        short = [{**row, "id": row["id"][:8], "created": f"{datetime.fromtimestamp(row['created']):%Y-%m-%d %H:%M}"}
                 for row in rows]  # fmt: skip
        return _list(parsed, rows if parsed.json else short, "" if rows else "No lab has run yet.")
    return _list(parsed, lab_console.listing(full=parsed.json))


def list_models(parsed: argparse.Namespace) -> int:
    rows = [
        {"id": m.id, "title": m.title, "parameters": m.parameters, "licence": m.licence, "gated": m.gated,
         "context": m.context, "repo": m.repo} for m in MODELS.values()
    ]  # fmt: skip
    return _list(parsed, rows, "Also random:ID (random weights, no download), a hub id, or a folder.")


def list_optimizations(parsed: argparse.Namespace) -> int:
    if parsed.markdown:
        OUT.print(_markdown(), markup=False)
        return 0
    rows = []
    for name, part in optimizations().items():
        knobs = {
            knob: {"default": field.default, "description": field.description}
            for knob, field in part.model_fields.items()
        }
        rows.append({"name": name, "title": part.title, "group": part.group, "lossless": part.lossless,
                     "unavailable": part.unavailable(machine()), "knobs": knobs, "lesson": part.lesson()})  # fmt: skip
    if parsed.json:
        return _list(parsed, rows)
    short = [
        {"name": row["name"], "title": row["title"], "group": row["group"],
         "knobs": ", ".join(f"{knob}={value['default']}" for knob, value in row["knobs"].items()),
         "here": row["unavailable"] or "yes"} for row in rows
    ]  # fmt: skip
    return _list(parsed, short)


def _markdown() -> str:
    """One row for each optimization, from the registry."""
    lines = ["| Toggle | Address, after `lanes.B.opts.` | What it does |", "|---|---|---|"]
    for name, part in optimizations().items():
        knobs = " ".join(f"`{name}.{knob}={field.default}`" for knob, field in part.model_fields.items())
        knobs = knobs or f"`{name}=true`"
        lines.append(f"| {part.title} | {knobs} | {part.headline()} |")
    return "\n".join(lines)


def show_machine(parsed: argparse.Namespace) -> int:
    facts = machine().to_dict()
    if parsed.json:
        OUT.print_json(json.dumps(facts))
    else:
        for name, value in facts.items():
            OUT.print(f"{name:14} {_flat(value)}", markup=False)
    return 0


def list_presets(parsed: argparse.Namespace) -> int:
    rows = [
        {
            "name": name,
            "title": found.title,
            "lanes": len(found.lanes),
            "model": found.model,
            "why": found.why,
        }
        for name, found in presets().items()
    ]
    return _list(parsed, rows if parsed.json else [{k: v for k, v in row.items() if k != "why"} for row in rows])


def list_history(parsed: argparse.Namespace) -> int:
    rows = Store().history(limit=parsed.limit)
    for row in rows:
        row.pop("owner")
        row.pop("process")
    if parsed.json:
        return _list(parsed, rows)
    short = [
        {"id": row["id"][:8], "when": f"{datetime.fromtimestamp(row['created']):%Y-%m-%d %H:%M}", "state": row["state"],
         "title": row["title"] or "untitled", "sentence": row["sentence"] or ""} for row in rows
    ]  # fmt: skip
    return _list(parsed, short, "" if short else "Nothing has run yet: python -m engine run does-16-bit-pay")


def replay_run(parsed: argparse.Namespace) -> int:
    store = Store()
    row = store.run(parsed.id)
    experiment = store.experiment(row["id"])
    if parsed.json:
        OUT.print_json(json.dumps(row["result"]))
        return 0
    replay(Bars(experiment, ERR), store.records(row["id"]), OUT)
    if row["result"]:
        OUT.print(table(row["result"]), markup=False)
    return 0


def _list(parsed: argparse.Namespace, rows: list[dict[str, Any]], foot: str = "") -> int:
    if parsed.json:
        OUT.print_json(json.dumps(rows))
        return 0
    cells = [list(rows[0])] + [[_flat(value) for value in row.values()] for row in rows] if rows else []
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))] if cells else []
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        OUT.print(line.rstrip(), markup=False)
    if foot:
        OUT.print(foot, markup=False)
    return 0


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_flat(inner) for inner in value) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    sys.exit(main())
