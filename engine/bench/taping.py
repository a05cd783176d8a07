"""Presets run on this machine and written as recordings."""

import re
import time
from pathlib import Path
from typing import Any

from engine.event import Record
from engine.export import put
from engine.measure.machine import machine
from engine.run.recordings import SUFFIX, recording
from engine.run.runner import Run

PRESETS = (
    "does-a-draft-pay-beside-one-call", "how-far-is-it-from-generate-to-the-limit", "everything-on",
    "does-4-bit-pay", "what-do-captured-and-fused-steps-gain", "when-does-guessing-pay",
    "how-much-does-a-batch-gain", "is-our-loop-as-fast-as-generate", "does-one-compiled-call-pay",
    "static-or-continuous-batching", "does-8-bit-pay-at-batch-1", "which-8-bit-is-faster",
    "what-does-compiling-cost",
)  # fmt: skip
"""What is worth seeing from a GPU, the most telling first."""


def suffix() -> str:
    """What the file's name ends in, for instance -h200; nothing for a processor, whose recordings came first."""
    gpus = machine().gpus
    found = re.search(r"[A-Z]+\d+\w*", gpus[0].name) if gpus else None
    return f"-{found[0].lower()}" if found else "-gpu" if gpus else ""


def write(folder: Path, name: str, run: Run, records: list[Record], found: dict[str, Any]) -> str:
    """Write a finished run into `folder` and say so. Raises Refusal for one that is no recording."""
    whole = all(lane["status"] == "finished" for lane in found["lanes"])
    state = "finished" if whole else "failed"
    kept = {"id": run.id, "created": time.time(), "state": state, "simulated": False, "sentence": None}
    kept |= {"title": run.experiment.title, "model": run.experiment.model}
    parts = {"experiment": found["experiment"], "machine": found["machine"], "result": found}
    file = recording({**kept, **parts, "records": [record.line() for record in records]})
    folder.mkdir(exist_ok=True)
    put(folder / f"{name}{suffix()}{SUFFIX}", file)
    return f"{name}{suffix()}{SUFFIX}: {len(file):,} bytes"
