"""The command line's commands, one a file: its name, `add(parser)` for its arguments, `do(parsed)` for its work."""

import argparse
import json
import pkgutil
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console

from engine.refusal import Refusal

OWNER = "command line"
OUT, ERR = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False)


def commands() -> dict[str, ModuleType]:
    """Every command by its file's name; the first line of its docstring is its help."""
    return {found.name: import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)}


def json_flag(parser: argparse.ArgumentParser) -> None:
    """For a command that lists something."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def json_file(parser: argparse.ArgumentParser) -> None:
    """For a command that measures something: see `deliver`."""
    parser.add_argument("--json", metavar="FILE", help="write the result there (- is standard output)")


def assignments(parser: argparse.ArgumentParser, what: str, example: str) -> None:
    """Changes to what is run: any number of `--set`."""
    parser.add_argument("--set", action="append", default=[], metavar=f"{what}=VALUE", dest="assignments",
                        help=f"change one {what.lower()}, for instance {example}")  # fmt: skip


def check_file(path: str | None) -> None:
    """Before anything runs. Raises Refusal if the result cannot be written there."""
    try:
        if path and path != "-":
            Path(path).open("a").close()
    except OSError as error:
        raise Refusal(f"{path} cannot be written: {error.strerror}.", "Name a file in a folder that exists.") from None


def deliver(found: dict[str, Any], path: str | None, table: str) -> None:
    """Print the table, or the JSON where `path` is "-"; and write the JSON to any other path."""
    if path == "-":
        OUT.print_json(json.dumps(found))
        return
    OUT.print(table, markup=False)
    if path:
        Path(path).write_text(json.dumps(found, indent=1), "utf-8")


def listing(parsed: argparse.Namespace, rows: list[dict[str, Any]], foot: str = "") -> int:
    if parsed.json:
        OUT.print_json(json.dumps(rows))
        return 0
    cells = [list(rows[0])] + [[flat(value) for value in row.values()] for row in rows] if rows else []
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))] if cells else []
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        OUT.print(line.rstrip(), markup=False)
    if foot:
        OUT.print(foot, markup=False)
    return 0


def flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(flat(inner) for inner in value) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
