"""Models of the Hugging Face hub: safetensors and text files only, a sentence for all that goes wrong."""

import errno
import io
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any

from engine.models import cache
from engine.models.resolve import PICKLES, Source, check_folder
from engine.refusal import Refusal

WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
TEXTS = re.compile(r"[^/]+\.(json|jinja|tiktoken)|tokenizer\.model|merges\.txt|vocab\.txt")
TIMEOUT = 10
OFFLINE = {
    "ConnectError",
    "ConnectTimeout",
    "ReadTimeout",
    "ProxyError",
    "ConnectionError",
    "OfflineModeIsEnabled",
    "LocalEntryNotFoundError",
}
BROKEN = {"RemoteProtocolError", "ReadError", "IncompleteRead", "WriteError"}
Progress = Callable[[float, float, str], None]


def fetch_hub(source: Source, progress: Progress) -> Path:
    """The folder of a hub model in the hub's own cache, downloaded where needed; `progress` is told bytes.

    Without a network a whole copy in the cache will do. Raises Refusal for: gated, missing, disabled, rate
    limited, no network, an interrupted download, a full disk, pickled weights only, code of its own.
    """
    try:
        return _fetch(source, progress)
    except Refusal:
        raise
    except Exception as error:  # hub, httpx and the operating system each have their own
        refusal, offline = explain(source.repo, error)
        if offline and (folder := _cached(source.repo)):
            return folder
        if refusal is None:
            raise
        raise refusal from error


def _fetch(source: Source, progress: Progress) -> Path:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    repo, token = source.repo, _token()
    info = HfApi(token=token).model_info(repo, files_metadata=True, timeout=TIMEOUT)
    sizes = _wanted(repo, {file.rfilename: file.size or 0 for file in info.siblings})
    place = {"repo_id": repo, "token": token}
    config = Path(hf_hub_download(filename="config.json", **place))
    _check(config, source)
    missing = sum(size for name, size in sizes.items() if not _right(config.parent / name, size))
    cache.need(_hub_cache(), missing * 1.05)
    bar = _bar(progress, sum(sizes.values()))
    for _ in range(2):  # a file of the cache that is damaged is fetched once more
        folder = Path(snapshot_download(allow_patterns=list(sizes), tqdm_class=bar, **place))
        wrong = [folder / name for name, size in sizes.items() if not _right(folder / name, size)]
        if not wrong:
            progress(sum(sizes.values()), sum(sizes.values()), "B")
            return folder
        for file in wrong:
            file.resolve().unlink(missing_ok=True)
            file.unlink(missing_ok=True)
    raise Refusal(f"The files of {repo} do not arrive whole.", "Try again later, or choose another model.")


def _check(config: Path, source: Source) -> None:
    from engine.models.load import check_config, read_config

    check_config(read_config(config.parent), source.name)


def _wanted(repo: str, sizes: dict[str, int]) -> dict[str, int]:
    """The files to download, with their sizes in bytes."""
    weights = [name for name in sizes if WEIGHTS.fullmatch(name)]
    if "config.json" not in sizes:
        raise Refusal(f"{repo} has no config.json.", "Choose a model in the format of transformers.")
    if not weights:
        pickled = any(name.endswith(PICKLES) for name in sizes)
        what = "pickled weights only, which can run code" if pickled else "no weights as model.safetensors"
        raise Refusal(f"{repo} holds {what}.", "Choose a repository with safetensors.")
    return {name: size for name, size in sizes.items() if name in weights or TEXTS.fullmatch(name)}


def _right(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size


def _hub_cache() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    path = Path(HF_HUB_CACHE)
    path.mkdir(parents=True, exist_ok=True)
    return path


def _token() -> str | bool:
    """The token of whoever runs Pitlane; none on a Space: a visitor must not borrow the owner's access."""
    from huggingface_hub import get_token

    return False if os.environ.get("SPACE_ID") else get_token() or False


def _cached(repo: str) -> Path | None:
    """The newest copy in the hub's cache, if all its weights are there."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repo, local_files_only=True, allow_patterns=["config.json"]))
        check_folder(folder)
        index = folder / "model.safetensors.index.json"
        shards = json.loads(index.read_text("utf-8"))["weight_map"].values() if index.is_file() else []
    except (OSError, ValueError, KeyError, Refusal):
        return None
    return folder if all((folder / shard).is_file() for shard in shards) else None


def _bar(progress: Progress, total: int) -> type:
    """A progress bar for the hub that draws nothing but tells `progress` the bytes, ten times a second."""
    from tqdm import tqdm

    lock, state = Lock(), {"bytes": 0.0, "told": 0.0}

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any):
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": False, "file": io.StringIO()})

        def display(self, *args: Any, **kwargs: Any) -> None:
            pass

        def update(self, n: float | None = 1) -> bool | None:
            drawn = super().update(n)
            if self.unit == "B":
                tell(self.n)
            return drawn

    def tell(done: float) -> None:
        with lock:  # the hub downloads in threads
            state["bytes"] = max(state["bytes"], min(done, total))
            if time.monotonic() - state["told"] > 0.1 or state["bytes"] >= total:
                state["told"] = time.monotonic()
                progress(state["bytes"], total, "B")

    return Bar


def explain(repo: str, error: BaseException) -> tuple[Refusal | None, bool]:
    """What went wrong in a sentence, and whether a copy in the cache would do. None is: no idea."""
    chain = list(_chain(error))
    names = {kind.__name__ for link in chain for kind in type(link).__mro__}
    status = next((link.response.status_code for link in chain if getattr(link, "response", None)), None)
    if any(getattr(link, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for link in chain):
        return cache.full(_hub_cache()), False
    if refusal := _denied(repo, names, status, chain):
        return refusal, status == 429
    if names & BROKEN or "consistency" in str(error).lower():
        return Refusal(f"The download of {repo} was interrupted.", "Run it again: it goes on where it stopped."), True
    if names & OFFLINE or (status or 0) >= 500:
        return _unreachable(repo), True
    return None, False


def _denied(repo: str, names: set[str], status: int | None, chain: list[BaseException]) -> Refusal | None:
    if "GatedRepoError" in names:
        return Refusal(
            f"{repo} is gated: only accounts that accepted its licence may download it.",
            "Accept the licence on the model's page of the hub and set HF_TOKEN to a token of that account.",
        )
    if "DisabledRepoError" in names:
        return Refusal(f"The hub has disabled {repo}.", "Choose another model.")
    if "RepositoryNotFoundError" in names:
        return Refusal(
            f"The hub has no model {repo}, or it is private.",
            "Check the spelling; for a private model set HF_TOKEN to a token that may read it.",
        )
    if status == 429:
        return Refusal("The hub limits how often it is asked, and the limit is reached.", _wait(chain))
    if status in (401, 403):
        return Refusal(f"The hub denies access to {repo}.", "Set HF_TOKEN to a valid token, or remove it.")
    return None


def _wait(chain: list[BaseException]) -> str:
    for link in chain:
        headers = getattr(getattr(link, "response", None), "headers", {})
        if headers.get("Retry-After", "").isdigit():
            return f"Try again in {headers['Retry-After']} seconds, or set HF_TOKEN for a higher limit."
    return "Try again in some minutes, or set HF_TOKEN for a higher limit."


def _unreachable(repo: str) -> Refusal:
    return Refusal(
        f"The hub cannot be reached, so {repo} cannot be fetched.",
        "Connect to the network, or choose the embedded model, a model folder or random weights.",
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
