"""Pitlane's own folder for models, with a lock for those who fill it and a mark on what is whole."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.refusal import Refusal

MARK = "complete.json"
ELSEWHERE = "Free some space, or set PITLANE_CACHE to a folder on another disk."


def folder() -> Path:
    """PITLANE_CACHE, or pitlane below XDG_CACHE_HOME, or ~/.cache/pitlane; it is made when it is missing.

    Raises Refusal where it cannot be written.
    """
    chosen = os.environ.get("PITLANE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    path = Path(chosen or Path(base) / "pitlane").expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refusal(
            f"The cache folder {path} cannot be made: {error.strerror}.",
            "Set PITLANE_CACHE to a folder that can be written.",
        ) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise Refusal(
            f"The cache folder {path} cannot be written.",
            "Set PITLANE_CACHE to a folder that can be written.",
        )
    return path


def need(path: Path, size: float) -> None:
    """Raises Refusal unless `size` bytes are free on the disk of `path`."""
    free = shutil.disk_usage(path).free
    if free < size:
        raise Refusal(
            f"The disk of {path} has {free / 1e9:.1f} GB free, and {size / 1e9:.1f} GB are needed.", ELSEWHERE
        )


def full(path: Path) -> Refusal:
    """The refusal for a disk that filled up while we wrote to `path`."""
    return Refusal(f"The disk of {path} is full.", ELSEWHERE)


@contextmanager
def lock(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`; `waiting` is called five times a second until it is free.

    The kernel drops the lock when its holder dies, so that no lock outlives a crash.
    """
    import fcntl

    with open(path, "w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting()
                time.sleep(0.2)
        yield


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def mark(path: Path, origin: str) -> None:
    """Write down size, time and SHA-256 of every file of a folder that is whole, and what it was made of."""
    files = {file.name: [*_stamp(file), sha256(file)] for file in sorted(path.iterdir()) if file.is_file()}
    (path / MARK).write_text(json.dumps({"origin": origin, "files": files}, indent=1), "utf-8")


def whole(path: Path, origin: str, deep: bool = False) -> bool:
    """Whether the folder is as it was marked.

    Sizes are compared always, contents when a file's time has changed or `deep` asks for it.
    """
    try:
        data = json.loads((path / MARK).read_text("utf-8"))
        return data["origin"] == origin and all(
            _same(path / name, *facts, deep) for name, facts in data["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _same(file: Path, size: int, changed: int, digest: str, deep: bool) -> bool:
    now = _stamp(file)
    return now[0] == size and ((now[1] == changed and not deep) or sha256(file) == digest)


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns
