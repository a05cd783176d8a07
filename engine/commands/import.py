"""Put runs from an exported JSON file into the history."""

import argparse
from pathlib import Path

from engine.commands import ERR, OWNER
from engine.export.copy import read, take
from engine.refusal import Refusal
from engine.run.store import Store


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="a file that python -m engine export ID --to FILE.json wrote")


def do(parsed: argparse.Namespace) -> int:
    try:
        data = Path(parsed.file).read_bytes()
    except OSError as error:
        raise Refusal(f"{parsed.file} cannot be read: {error.strerror}.", "Check the path.") from None
    for run in take(Store(), read(data), OWNER):
        ERR.print(f"{run[:8]} is in the history: python -m engine replay {run[:8]}", markup=False)
    return 0
