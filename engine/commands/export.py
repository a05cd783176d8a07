"""Write runs to a file: CSV, Parquet, an exact JSON, or a report in HTML, by the end of its name."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from engine.commands import ERR
from engine.export import FILES, Entry, entries, put
from engine.refusal import Refusal
from engine.run.recordings import Library

ENDS = {".csv": ("rounds.csv", "steps.csv"), ".parquet": ("rounds.parquet", "steps.parquet"), ".json": ("json",)}
"""The first of them gets the name that was asked for, the second one says what it holds."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "ids", nargs="+", metavar="ID", help="runs by their ids or the beginnings of them, and recordings by name"
    )
    parser.add_argument("--to", required=True, metavar="FILE",
                        help="FILE.csv and FILE.parquet: rounds, and steps beside them; FILE.json: to import again; "
                        "FILE.html: a report that opens anywhere")  # fmt: skip


def do(parsed: argparse.Namespace) -> int:
    path = Path(parsed.to)
    if path.suffix not in (*ENDS, ".html"):
        raise Refusal(f"{path.name} has no known ending.", f"End it with {', '.join(ENDS)} or .html.")
    for place, data in files(path, entries(Library(), parsed.ids)):
        put(place, data)
        ERR.print(f"{place}: {len(data):,} bytes", markup=False)
    return 0


def files(path: Path, runs: Sequence[Entry]) -> list[tuple[Path, bytes]]:
    """What is to be written where."""
    if path.suffix == ".html":
        from components.report import report  # the only part that draws

        return [(path, report(runs).encode())]
    first, *further = ENDS[path.suffix]
    return [(path, FILES[first](runs)), *((path.with_suffix(f".{name}"), FILES[name](runs)) for name in further)]
