"""Recordings: real runs that ship with the project, each an export in gzip's wrapping, read beside the history."""

import gzip
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from engine.event import Record
from engine.export.copy import PARTS, read, written
from engine.measure.machine import Machine
from engine.measure.result import result
from engine.presets import FOLDER as PRESETS
from engine.refusal import Refusal
from engine.run.store import Store, outcome, tags
from engine.spec import Experiment

FOLDER = PRESETS / "recordings"
NOBODY = ""
"""The owner of a recording."""
SHORTEST = 8
"""So many letters of an id mean a recording on the command line."""
SUFFIX = ".json.gz"
LARGEST = 200_000
"""Bytes of a recording's file. Wrapped it has a tenth of what it says: a GPU writes thousands of tokens in a run."""
PLACE = re.compile(r"(?<![\w.:/])(?:~|/(?:home|root|Users|tmp|var|opt|mnt|srv|work|data|usr|etc))/|\b[A-Z]:\\\\\w")
"""The beginning of a path on somebody's machine."""
LISTED = ("id", "name", "recorded", "created", "state", "title", "model", "simulated", "sentence")


@dataclass(frozen=True)
class Recording:
    """A run under the name of its file. `entry` is what engine.export.copy.Entry describes, as plain data."""

    name: str
    entry: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Where and when it was recorded."""
        day = datetime.fromtimestamp(self.entry["created"], UTC)
        return f"recorded on {Machine.read(self.entry['machine']).summary()}, {day.day} {day:%B %Y}"

    def row(self) -> dict[str, Any]:
        """As Store.run gives a run of the history, with the `name` and where it was `recorded`."""
        kept = {key: value for key, value in self.entry.items() if key != "records"}
        written = {part: json.dumps(self.entry[part]) for part in PARTS if part != "result"}
        further = {"owner": NOBODY, "process": 0, "lanes": tags(self.entry["experiment"])}
        return {**kept, **written, **further, "name": self.name, "recorded": self.label}

    def listed(self) -> dict[str, Any]:
        """As Store.history lists a run, without an owner."""
        row = self.row()
        return {**{key: row[key] for key in LISTED}, "lanes": json.loads(row["lanes"])}

    def records(self, start: int = 0) -> list[Record]:
        return [Record.parse(line) for line in self.entry["records"][start:]]


@dataclass(frozen=True)
class Shelf:
    """The recordings of a folder by their files' names, and a sentence on each file that cannot be read."""

    recordings: dict[str, Recording]
    faults: tuple[str, ...]


@cache
def shelf(folder: Path = FOLDER) -> Shelf:
    """Read once. A file that was changed, or that is no export, is left out."""
    found, faults = {}, []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        name = path.name.removesuffix(SUFFIX)
        try:
            (entry,) = read(gzip.decompress(path.read_bytes()))
            found[name] = Recording(name, entry)
        except (Refusal, ValueError, EOFError, OSError, zlib.error) as fault:
            why = fault.why if isinstance(fault, Refusal) else "It does not hold one run."
            faults.append(f"The recording {name} cannot be read. {why}")
    return Shelf(found, tuple(faults))


def recordings() -> dict[str, Recording]:
    return shelf().recordings


def recorded(name: str) -> Recording | None:
    """The recording of this name or id, or whose id alone begins like this; None where there is none."""
    if name in recordings():
        return recordings()[name]
    found = [one for one in recordings().values() if one.entry["id"].startswith(name)]
    return found[0] if len(name) >= SHORTEST and len(found) == 1 else None


def recording(entry: Mapping[str, Any]) -> bytes:
    """A run as the bytes of a recording's file, its result told anew from its records by this version.

    Raises Refusal for a run that measured nothing real, did not end well, or tells of its machine more than what it is.
    """
    if entry["simulated"] or entry["state"] != "finished":
        raise Refusal(f"Run {entry['id'][:8]} is {entry['state']}{' and simulated' * entry['simulated']}.",
                      "A recording is a real run that has finished.")  # fmt: skip
    records = [Record.parse(line) for line in entry["records"]]
    told = result(Experiment.read(entry["experiment"]), entry["machine"], records)
    text = written([{**entry, "result": told, "sentence": outcome(told)}])
    if found := PLACE.search(text.decode()):
        near = text.decode()[found.start() : found.start() + 40]
        raise Refusal(f"The run names a place on this machine: {near}", "Record one of a catalogued model.")
    file = gzip.compress(text, mtime=0)
    if len(file) > LARGEST:
        why = f"The recording would have {len(file):,} bytes; {LARGEST:,} are the most."
        raise Refusal(why, "Run it again with fewer rounds, requests or tokens.")
    return file


class Library(Store):
    """The history, and the recordings beside it: who asks for one by its name or id reads it like any other run."""

    def run(self, run: str) -> dict[str, Any]:
        found = recorded(run)
        return found.row() if found else super().run(run)

    def records(self, run: str, start: int = 0) -> list[Record]:
        found = recorded(run)
        return found.records(start) if found else super().records(run, start)
