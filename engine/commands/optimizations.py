"""What a lane can switch on, and its knobs."""

import argparse
from typing import Any

from engine.commands import OUT, json_flag, listing
from engine.measure.machine import machine
from engine.registry import optimizations


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--markdown", action="store_true", help="print the table of the README")
    json_flag(parser)


def do(parsed: argparse.Namespace) -> int:
    if parsed.markdown:
        OUT.print(markdown(), markup=False)
        return 0
    found = rows()
    if parsed.json:
        return listing(parsed, found)
    short = [
        {"name": row["name"], "title": row["title"], "group": row["group"],
         "knobs": ", ".join(f"{knob}={value['default']}" for knob, value in row["knobs"].items()),
         "here": row["unavailable"] or "yes"} for row in found
    ]  # fmt: skip
    return listing(parsed, short)


def rows() -> list[dict[str, Any]]:
    """Every optimization, with its lesson and why it is unavailable here where it is."""
    found = []
    for name, part in optimizations().items():
        knobs = {
            knob: {"default": field.default, "description": field.description}
            for knob, field in part.model_fields.items()
        }
        found.append({"name": name, "title": part.title, "group": part.group, "lossless": part.lossless,
                     "unavailable": part.unavailable(machine()), "knobs": knobs, "lesson": part.lesson()})  # fmt: skip
    return found


def markdown() -> str:
    """One row for each optimization, from the registry."""
    lines = ["| Toggle | Address, after `lanes.B.opts.` | What it does |", "|---|---|---|"]
    for name, part in optimizations().items():
        knobs = " ".join(f"`{name}.{knob}={field.default}`" for knob, field in part.model_fields.items())
        knobs = knobs or f"`{name}=true`"
        lines.append(f"| {part.title} | {knobs} | {part.headline()} |")
    return "\n".join(lines)
