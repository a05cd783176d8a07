"""C++ sources compiled for this very processor, kept in the cache, and loaded into the process."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from engine.models.cache import folder
from engine.refusal import Refusal

FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-pthread")
COMPILE_S = 120


def compiler() -> str:
    """The C++ compiler's path: CXX, or g++. Raises Refusal where there is none."""
    name = os.environ.get("CXX", "g++")
    if found := shutil.which(name):
        return found
    raise Refusal(
        f"There is no C++ compiler ({name}) on this machine, and this loop is compiled for its processor.",
        "Install g++, or set CXX to the compiler that is there.",
    )


@cache
def library(source: Path, *flags: str) -> ctypes.CDLL:
    """The loaded library of one source file; compiled once for each source, compiler and processor.

    `flags` are the compiler's, beside those that every source gets.

    Raises Refusal without a compiler, without a place for the file, or when the compiler rejects the source.
    """
    place = folder() / "kernels"
    place.mkdir(exist_ok=True)
    built = place / f"{source.stem}-{_key(source, flags)}.so"
    if not built.exists():
        _build(source, built, flags)
    try:
        return ctypes.CDLL(str(built))
    except OSError:  # cut short by a full disk, or from another system: once more
        _build(source, built, flags)
        return ctypes.CDLL(str(built))


def _key(source: Path, flags: tuple[str, ...]) -> str:
    """What the compiler predefines for this processor says which compiler and which instructions."""
    target = _run(compiler(), *FLAGS, "-x", "c++", "-E", "-dM", "/dev/null")
    read = b"".join(path.read_bytes() for path in (source, *sorted(source.parent.rglob("*.h"))))
    return hashlib.sha256(read + " ".join((*flags, target)).encode()).hexdigest()[:16]


def _build(source: Path, built: Path, flags: tuple[str, ...]) -> None:
    """Compile beside the final name and move it there, so that nobody ever loads half a file."""
    descriptor, draft = tempfile.mkstemp(dir=built.parent, suffix=".so")
    os.close(descriptor)
    try:
        _run(compiler(), *FLAGS, *flags, str(source), "-o", draft)
        os.replace(draft, built)
    finally:
        Path(draft).unlink(missing_ok=True)


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_S, check=True).stdout
    except (subprocess.SubprocessError, OSError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[0]
        raise Refusal(
            f"The C++ compiler {command[0]} could not build the loop: {said}.",
            "Set CXX to another compiler, g++ 9 or newer.",
        ) from None
