"""Probing: has this machine measured once, in a process of its own, and keeps what came out."""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from engine.measure.machine import machine
from engine.measure.roofs import best, keep, measured
from engine.refusal import Refusal
from engine.run.child import ROOT, environment

PROBE_S = 120.0
"""A probe takes some eight seconds; one that takes this long will not end."""
RUNNING = threading.Lock()
BUSY, AGAIN_S = 0.1, 3600.0
"""From this share of the processor on, what others do shows in the figures: a run this much later measures again."""
FAILED: list[str] = []
"""Why it failed in this process, so that not every run tries again."""
log = logging.getLogger("pitlane.probe")


def needed() -> bool:
    """Whether this machine has not been measured yet, or some time ago while others used it.

    A GPU that is lent for seconds is never measured: its visitors' time is for their lanes.
    """
    if machine().zero_gpu:
        return False
    known = measured(machine())
    if FAILED or known is None:
        return not FAILED
    return known["others"] > BUSY and time.time() - known["created"] > AGAIN_S


def attempt(stopped: Callable[[], bool]) -> None:
    """Measure, and only say so in the log where that fails. Of disturbed measurements the best figures are kept."""
    known = measured(machine())
    try:
        found = probe(stopped)
        if known:
            first, second = sorted((known, found), key=lambda one: one["others"])
            keep(machine(), {**best(first, second), "created": found["created"]})
    except (Refusal, OSError) as error:
        if not stopped():
            FAILED.append(str(error))
            log.warning("%s", error)


def probe(stopped: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Measure now and keep it: see `engine.measure.probe`. Raises Refusal where it fails or is stopped, and OSError."""
    with RUNNING:
        return keep(machine(), _figures(stopped))


def _figures(stopped: Callable[[], bool]) -> dict[str, Any]:
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as words:
        command, ends = [sys.executable, "-m", "engine.measure.probe"], {"stdout": said, "stderr": words}
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, cwd=ROOT, env=environment(None), start_new_session=True, **ends
        )
        _wait(child, stopped)
        said.seek(0), words.seek(0)
        try:
            return json.loads(said.read())
        except ValueError:
            last = next((line.strip() for line in reversed(words.readlines()) if line.strip()), "no message")
            why = f"This machine could not be measured: {last}."
            raise Refusal(why, "Runs go on without ceilings; try python -m engine machine --measure.") from None


def _wait(child: subprocess.Popen, stopped: Callable[[], bool]) -> None:
    """Until it ends; it is ended where somebody stopped it or it takes too long."""
    ends = time.monotonic() + PROBE_S
    try:
        while child.poll() is None and time.monotonic() < ends and not stopped():
            time.sleep(0.05)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
