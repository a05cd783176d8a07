"""Child: the parent's handle on one worker process."""

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from engine.event import TERMINAL, Event, Failed, Finished, Memory, Phase, from_dict
from engine.run.memories import Memories

ROOT = Path(__file__).resolve().parents[2]
CANCEL_GRACE_S = 0.5
SILENCE_S = {
    "import": 180.0, "fetch": 120.0, "load": 600.0, "quantize": 1200.0, "compile": 3600.0, "capture": 600.0,
    "warmup": 600.0, "profile": 600.0, "run": 300.0,
    "quality": 300.0,
}  # fmt: skip
"""How long a worker may say nothing in each phase before it counts as hanging."""

BRIEF_SPIN = "5000"
"""Threads that wait for each other give their core up early: a busy neighbour then costs 12 % and not 150 %."""

SECRETS = ("TOKEN", "SECRET", "PASSWORD", "API_KEY")
LIKELY_MEMORY = "Most likely the memory ran out: choose a smaller model, fewer bits or a smaller batch."


class Child:
    """One worker. Its pipe is always drained by a thread, so a slow reader here never slows a step there.

    `command` starts something that starts the worker, as torchrun does; `extra` goes into its environment.
    """

    def __init__(
        self,
        threads: int | None = None,
        silence: dict[str, float] | None = None,
        command: list[str] | None = None,
        extra: dict[str, str] | None = None,
    ):
        self._begin(silence)
        self.memories = Memories()
        self.process = subprocess.Popen(
            command or [sys.executable, "-m", "engine.run.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            cwd=ROOT, env=environment(threads) | (extra or {}), start_new_session=True, text=True, encoding="utf-8",
        )  # fmt: skip
        threading.Thread(target=self._drain, name="drain", daemon=True).start()
        threading.Thread(target=self._keep_log, name="log", daemon=True).start()

    def _begin(self, silence: dict[str, float] | None) -> None:
        self.silence = {**SILENCE_S, **(silence or {})}
        self.log: deque[str] = deque(maxlen=60)
        self.arrived: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self.usable = True
        self.owed = 0
        self.used = time.monotonic()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def open(self, lane: dict[str, Any]) -> None:
        """Let the worker import its libraries while others load; the next turn waits for it."""
        self._send({"do": "open", "lane": lane})
        self.owed += 1

    def turn(self, command: dict[str, Any], cancelled: threading.Event) -> Iterator[Event]:
        """Send a command and yield its events up to exactly one Finished or Failed."""
        phase = "import" if command["do"] == "prepare" else "run"
        self._send(command)
        heard, asked = time.monotonic(), None
        while True:
            if cancelled.is_set() and asked is None:
                asked = time.monotonic()
                self._send({"do": "cancel"})
            try:
                event = self.arrived.get(timeout=0.05)
            except queue.Empty:
                if asked and time.monotonic() - asked > CANCEL_GRACE_S:
                    yield self._end(Failed(time.perf_counter(), "Stopped.", "", "cancelled"))
                    return
                if time.monotonic() - heard > self.silence[phase]:
                    yield self._end(self._hung(phase))
                    return
                continue
            if event is None:
                yield self._end(
                    self._died(phase) if asked is None else Failed(time.perf_counter(), "Stopped.", "", "cancelled")
                )
                return
            heard = time.monotonic()
            phase = event.name if isinstance(event, Phase) and event.name in self.silence else phase
            if isinstance(event, Finished) and self.owed:
                self.owed -= 1
                continue
            if isinstance(event, TERMINAL):
                self._judge(event, phase)
                yield event
                return
            yield event

    def kill(self) -> None:
        """End the worker and everything it started, also what has a session of its own, as torchrun's ranks have."""
        self.usable = False
        family = _descendants(self.process.pid)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with suppress(OSError):
                pipe.close()

    def _judge(self, end: Event, phase: str) -> None:
        """A worker that failed is poisoned; one that refused bad input or stopped between steps is not."""
        self.used = time.monotonic()
        clean = not isinstance(end, Failed) or (end.status == "cancelled" and phase in ("run", "quality"))
        if not clean:
            self.kill()

    def _end(self, failed: Failed) -> Failed:
        self.kill()
        return failed

    def _send(self, command: dict[str, Any]) -> None:
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except (OSError, ValueError):
            self.usable = False

    def _drain(self) -> None:
        """Pass on what the worker says; the ranks of one lane write to one pipe, and their memory is added up."""
        for line in self.process.stdout:
            try:
                data = json.loads(line)
            except ValueError:  # a rank that broke has written into the middle of another's long line
                self.log.append(line.rstrip())
                continue
            rank, event = data.pop("rank", 0), from_dict(data)
            self.arrived.put(self.memories.add(rank, event) if isinstance(event, Memory) else event)
        self.arrived.put(None)

    def _keep_log(self) -> None:
        for line in self.process.stderr:
            self.log.append(line.rstrip())

    def _rank_code(self, code: int) -> int:
        """How the worker ended; torchrun itself ends with 1 and ends its log with how the first rank that broke did."""
        found = (re.search(r"exitcode\s*: (-?\d+)", line) for line in reversed(self.log))
        return next((int(match[1]) for match in found if match), code)

    def _hung(self, phase: str) -> Failed:
        why = f"The worker said nothing for {self.silence[phase]:.0f} s in phase {phase} and was ended."
        return Failed(time.perf_counter(), why, "Run again, or switch this lane's optimizations off one at a time.")

    def _died(self, phase: str) -> Failed:
        code = self._rank_code(self.process.wait())
        if code >= 0:
            last = next((line for line in reversed(self.log) if line.strip()), "no message")
            return Failed(
                time.perf_counter(),
                f"The worker ended by itself with status {code} in phase {phase}: {last}",
                "Run again.",
            )
        name = signal.Signals(-code).name
        if -code == signal.SIGKILL:
            return Failed(
                time.perf_counter(),
                f"The worker was killed by the operating system (SIGKILL) in phase {phase}.",
                LIKELY_MEMORY,
            )
        hint = "Run again; if it happens again, switch this lane's optimizations off one at a time."
        return Failed(time.perf_counter(), f"The worker crashed with {name} in phase {phase}.", hint)


def _descendants(pid: int) -> list[int]:
    try:
        return [process.pid for process in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def environment(threads: int | None) -> dict[str, str]:
    """The worker sees no secrets but the hub's token, which it needs for gated models."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key == "HF_TOKEN" or not any(word in key.upper() for word in SECRETS)
    }
    kept |= {"HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    kept.setdefault("GOMP_SPINCOUNT", BRIEF_SPIN)
    if threads:
        kept["OMP_NUM_THREADS"] = str(threads)
    return kept
