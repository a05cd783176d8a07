"""Programs that run beside the bench: their lines are kept, and they are ended when their time is over."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress

from engine.run.child import ROOT, environment


class Side:
    """One Python program with all that it starts. What it said is kept also where it had to be ended."""

    def __init__(self, arguments: Sequence[str]):
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed with this object)
        ends = {"stdin": subprocess.DEVNULL, "stdout": self.said, "stderr": subprocess.STDOUT}
        command = [sys.executable, *arguments]
        self.child = subprocess.Popen(command, cwd=ROOT, env=environment(None), start_new_session=True, **ends)

    def end(self, until: float) -> tuple[list[str], int | None]:
        """Wait until that moment of the monotonic clock; its lines, and its status, or None where it was ended."""
        with suppress(subprocess.TimeoutExpired):
            self.child.wait(max(0.0, until - time.monotonic()))
        status = self.child.poll()
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()
        self.said.seek(0)
        return self.said.read().splitlines(), status
