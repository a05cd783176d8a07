"""Runs as JSON, exact to the last digit: what is imported again is what was exported."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.event import Record
from engine.refusal import Refusal
from engine.run.store import Store
from engine.spec import Experiment

FORMAT = "pitlane runs"
VERSION = 1
PARTS = ("experiment", "machine", "result")
AGAIN = "Export the run again where it was recorded."


class Entry(BaseModel):
    """A run as it leaves: what the history's row says of it, its parts as plain data, and its records as lines."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str = Field(pattern="^[0-9A-Za-z]{8,64}$")
    created: float = Field(ge=0, le=1e11, description="Seconds since 1970.")
    state: Literal["finished", "failed", "cancelled", "interrupted"]
    title: str
    model: str
    simulated: bool
    sentence: str | None
    experiment: dict[str, Any]
    machine: dict[str, Any]
    result: dict[str, Any]
    records: list[str]


def entry(row: dict[str, Any], records: Sequence[Record]) -> dict[str, Any]:
    """A run of the history as plain data."""
    parts = {name: json.loads(row[name]) if isinstance(row[name], str) else row[name] for name in PARTS}
    kept = {name: row[name] for name in Entry.model_fields if name not in (*parts, "records")}
    return {**kept, **parts, "simulated": bool(row["simulated"]), "records": [record.line() for record in records]}


def written(entries: Sequence[dict[str, Any]]) -> bytes:
    """The file's bytes. Its digest tells a file that was changed or damaged from one that is as it was written."""
    runs = list(entries)
    return json.dumps({"format": FORMAT, "version": VERSION, "sha256": _digest(runs), "runs": runs}).encode()


def read(data: bytes) -> list[dict[str, Any]]:
    """The inverse of `written`. Raises Refusal for a file that is none, newer, incomplete or changed."""
    try:
        found = json.loads(data)
        form, version, digest, runs = (found[name] for name in ("format", "version", "sha256", "runs"))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Refusal("This file is no export of Pitlane, or not all of it.", AGAIN) from None
    if form != FORMAT:
        raise Refusal("This file is no export of Pitlane.", AGAIN)
    if version != VERSION:
        raise Refusal(f"This export has version {version!r}, and this Pitlane reads {VERSION}.", "Update Pitlane.")
    if digest != _digest(runs):
        raise Refusal("This export was changed or damaged after it was written.", AGAIN)
    return runs


def take(store: Store, runs: Sequence[dict[str, Any]], owner: str) -> list[str]:
    """Put runs into a history, all checked before the first is written; their ids.

    Raises Refusal for a run that is in the history already, or that this version cannot replay.
    """
    ready = [_checked(run, owner) for run in runs]
    for row, records in ready:
        store.take_in(row, records)
    return [row["id"] for row, _ in ready]


def _checked(run: Any, owner: str) -> tuple[dict[str, Any], list[Record]]:
    try:
        sound = Entry.model_validate(run)
        records = [Record.parse(line) for line in sound.records]
    except (ValidationError, ValueError, KeyError, TypeError):
        raise Refusal("A run in this export is not as Pitlane writes it.", AGAIN) from None
    try:
        Experiment.read(sound.experiment)
    except Refusal as refusal:
        why = f"Run {sound.id[:8]} has a setup that this version does not know: {refusal.why}"
        raise Refusal(why, "Import it with the version that wrote it.") from None
    row = sound.model_dump(exclude={"records"})
    return {**row, **{name: json.dumps(row[name]) for name in PARTS}, "owner": owner}, records


def _digest(runs: Any) -> str:
    return hashlib.sha256(json.dumps(runs, sort_keys=True).encode()).hexdigest()
