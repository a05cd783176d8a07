"""Keep a run as a recording, which comes with Pitlane and is shown on every page."""

import argparse
import re
from pathlib import Path

from engine.commands import ERR
from engine.export import entries, put
from engine.run.recordings import FOLDER, SUFFIX, recording
from engine.run.store import Store


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", help="a run's id, or the beginning of it")
    parser.add_argument("--to", metavar="FILE", help="FILE.json.gz (default: after its title, in presets/recordings)")


def do(parsed: argparse.Namespace) -> int:
    (entry,) = entries(Store(), [parsed.id])
    name = "-".join(re.findall(r"[a-z0-9]+", entry["title"].lower())) or entry["id"][:8]
    path = Path(parsed.to) if parsed.to else FOLDER / f"{name}{SUFFIX}"
    file = recording(entry)
    put(path, file)
    ERR.print(f"{path}: {len(file):,} bytes", markup=False)
    return 0
