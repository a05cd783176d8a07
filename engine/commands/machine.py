"""What this machine is, and what it was measured to do at most."""

import argparse
import json
from datetime import datetime
from typing import Any

from engine.commands import ERR, OUT, flat, json_flag
from engine.measure.machine import machine
from engine.run import probing

TITLES = {
    "system": "system", "processor": "processor", "cores": "cores", "caches": "caches of a core, bytes",
    "instructions": "instructions", "memory_bytes": "memory, bytes", "gpus": "GPUs", "compiler": "compiler",
    "python": "Python", "packages": "packages", "counters": "power and energy counters",
}  # fmt: skip
NEVER = "Not measured yet: python -m engine machine --measure takes some ten seconds; the first run does it as well."


def add(parser: argparse.ArgumentParser) -> None:
    json_flag(parser)
    parser.add_argument("--measure", action="store_true", help="measure it again (some ten seconds)")


def do(parsed: argparse.Namespace) -> int:
    if parsed.measure:
        ERR.print("Measuring memory and arithmetic: some ten seconds.")
        probing.probe()
    facts = machine().to_dict()
    if parsed.json:
        OUT.print_json(json.dumps(facts))
        return 0
    for name, title in TITLES.items():
        OUT.print(f"{title:26} {flat(facts[name]) if facts[name] else 'none'}", markup=False)
    OUT.print(_measured(facts["measured"]), markup=False)
    return 0


def _measured(figures: dict[str, Any] | None) -> str:
    if not figures:
        return NEVER
    rows = [("measured", "best", "median", "middle half", "by"), *_rows(figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    when = f"{datetime.fromtimestamp(figures['created']):%Y-%m-%d %H:%M}"
    caution = ""
    if figures["others"] > probing.BUSY:
        caution = f" Other programs had {figures['others']:.0%} of the processor then: measure again when it is quiet."
    return "\n".join(["", *lines, f"Measured in {figures['seconds']:.1f} s on {when}.{caution}"])


def _rows(figures: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for name, device in figures["devices"].items():
        for count, one in device["bandwidth"].items():
            rows.append(_row(f"{name}: reading, GB/s", count, one, 1e9))
        most = next(reversed(device["bandwidth"].values()))
        rows += [_size(name, size, best) for size, best in most.get("sizes", ())[:-1]]
        for kind, by in device["rates"].items():
            rows += [_row(f"{name}: {kind}, {_unit(kind)}", count, one, 1e12) for count, one in by.items()]
        rows.append(_row(f"{name}: launches, thousands/s", "1", device["small"], 1e3))
    return rows


def _size(name: str, size: int, best: float) -> tuple[str, ...]:
    """Reading the same bytes again and again, of which a cache keeps a part."""
    return f"{name}: reading {size / 1e6:,.0f} MB again, GB/s", f"{best / 1e9:.3g}", "", "", ""


def _row(name: str, threads: str, one: dict[str, Any], unit: float) -> tuple[str, ...]:
    """For instance ("cpu: reading, GB/s, 2 threads", "47.2", "44.1", "43.0 to 46.2", "compiled loop")."""
    best, median, low, high = (f"{one[key] / unit:.3g}" for key in ("best", "median", "low", "high"))
    shared = f", {threads} {'thread' if threads == '1' else 'threads'}" if name.startswith("cpu") else ""
    return name + shared, best, median, f"{low} to {high}", one["source"]


def _unit(kind: str) -> str:
    return "TOP/s" if kind.startswith("int") else "TFLOP/s"
