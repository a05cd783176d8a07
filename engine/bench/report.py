"""The report of a bench: everything is said at once, and stands in two files that are whole after every row."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.event import Failed, Finished, Record
from engine.export import put
from engine.measure.machine import machine
from engine.refusal import Refusal

FIGURES, TEXT = "bench.json", "bench.md"


class Report:
    """Figures as JSON and the text as Markdown in `folder`, which is made where it is missing.

    Raises Refusal where it cannot be made. What `say` is given is shown to whoever waits.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]):
        self.folder, self.show = folder, say
        self.begun = time.monotonic()
        self.text: list[str] = []
        self.found: dict[str, Any] = {
            "machine": machine().to_dict(),
            "checks": [],
            "rows": {},
            "figures": {},
            "not run": {},
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = f"The folder {folder} cannot be made: {error.strerror}."
            raise Refusal(why, "Name one with --out that can be.") from None
        self.write()

    @property
    def seconds(self) -> float:
        """Since the bench began."""
        return time.monotonic() - self.begun

    def say(self, text: str) -> None:
        self.text.append(text)
        self.show(text)

    def begin(self, what: str) -> None:
        self.show(f"[{self.seconds:.0f} s] {what}")

    def row(self, name: str, found: dict[str, Any]) -> None:
        self.found["rows"][name] = found
        self.write()

    def figure(self, name: str, found: dict[str, Any]) -> None:
        """What is no experiment of lanes."""
        self.found["figures"][name] = found
        self.write()

    def check(self, found: dict[str, Any]) -> None:
        """One line for a check: whether it held, and the sentence that says what was seen."""
        self.found["checks"].append(found)
        self.say(f"- {found['verdict']} {found['name']}: {found['sentence']}")

    def missing(self, name: str, why: str) -> None:
        """A part that was not run, or broke."""
        self.found["not run"][name] = why
        self.say(f"\n{name}: {why}")
        self.write()

    def hear(self, lanes: list[str], record: Record) -> None:
        """Say how a lane's preparation went: what it cost, or why it is out."""
        if record.round is None and isinstance(record.event, Finished) and (costs := record.event.effective["costs"]):
            spent = ", ".join(f"{key.removesuffix('_s')} {seconds:.1f} s" for key, seconds in costs.items())
            self.begin(f"  {lanes[record.lane]}: {spent}")
        elif isinstance(record.event, Failed):
            self.begin(f"  {lanes[record.lane]}: {record.event.why} {record.event.hint}".rstrip())

    def write(self) -> None:
        """Put both files in place. Raises Refusal where they cannot be written."""
        put(self.folder / FIGURES, json.dumps({**self.found, "machine": machine().to_dict()}).encode())
        put(self.folder / TEXT, "\n".join([*self.text, ""]).encode())
