"""Measure a lab's grid of points."""

import argparse

from engine import lab_console
from engine.commands import ERR, OWNER, assignments, check_file, deliver, json_file
from engine.run.store import Store


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="a lab's name, as python -m engine labs lists them")
    assignments(parser, "KNOB", "rows=16384")
    json_file(parser)


def do(parsed: argparse.Namespace) -> int:
    """Measure a lab, show its progress on stderr, and print its picture and its sentence on stdout."""
    lab = lab_console.lab(parsed.name, parsed.assignments)
    check_file(parsed.json)
    found = lab_console.follow(lab, Store(), OWNER, ERR)
    deliver(found, parsed.json, lab_console.picture(found))
    return 0 if found["status"] == "finished" else 1
