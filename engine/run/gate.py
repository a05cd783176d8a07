"""The gate: one process of a user measures at a time, for two at once would measure each other."""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LOOK_S = 0.2


@contextmanager
def alone(path: Path, stop: Callable[[], bool]) -> Iterator[None]:
    """Wait until nobody else holds the lock on the file `path`, or until `stop()`; hold it meanwhile.

    The kernel frees the lock when its holder dies.
    """
    with path.open("w") as gate:
        while not stop():
            try:
                fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(LOOK_S)
        try:
            yield
        finally:
            fcntl.flock(gate, fcntl.LOCK_UN)  # a process that was forked meanwhile has the file open as well
