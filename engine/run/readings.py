"""Readings: figures of quality that were found before, kept beside the history, for they come out the same again."""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.measure.machine import machine
from engine.plan import Plan
from engine.run.store import home

NUMBERS = (
    "backend", "device", "dtype", "attention", "sdpa", "quantization", "packed", "native", "window", "kv_bits",
    "offload", "merged", "kernels", "compile", "tensor_parallel",
)  # fmt: skip
"""The fields of a plan that a prediction can depend on, be it by rounding."""


def key(plan: Plan, reference: Plan, model: str, texts: Any) -> str:
    """What identifies a reading: who read (in which numbers, on what) what, against whom. `model` names its weights."""
    here = machine()
    facts = {
        "model": [plan.model, model],
        "lane": [repr(getattr(plan, name)) for name in NUMBERS],
        "reference": [repr(getattr(reference, name)) for name in NUMBERS],
        "machine": [here.processor, here.instructions, here.packages, [gpu.name for gpu in here.gpus]],
        "texts": texts,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def known(name: str) -> dict[str, Any] | None:
    """The figures of an `earlier` reading with the moment `read`; None where none is there or can be read."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(_file(name).read_text("utf-8"))
        if isinstance(found["kl_mean"], float) and isinstance(found["read"], float):
            return {**found, "earlier": True}
    return None


def keep(name: str, figures: dict[str, Any]) -> dict[str, Any]:
    """Keep them, and return them with the moment `read`. Where the disk is full they are read again another time."""
    found = {**figures, "read": time.time()}
    with suppress(OSError):
        _file(name).parent.mkdir(parents=True, exist_ok=True)
        part = _file(name).with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(found), "utf-8")
        part.replace(_file(name))
    return found


def _file(name: str) -> Path:
    return home() / "readings" / f"{name}.json"
