"""From a source to a folder on this machine that can be loaded."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from engine.models.embedded import fetch_embedded, fetch_published
from engine.models.noise import random_folder
from engine.models.resolve import Source, check_folder

WEIGHTS = ("*.safetensors", "*.gguf", "config.json")


def revision(folder: Path) -> str:
    """Names the weights of a folder: other files, or files that were written again, have another name."""
    files = sorted(file for pattern in WEIGHTS for file in folder.glob(pattern))
    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def fetch(source: Source, progress: Callable[[float, float, str], None]) -> Path:
    """A folder with config.json, tokenizer files and (but for random weights) safetensors, or with one GGUF file.

    `progress(done, total, unit)` is called while something arrives. Raises Refusal with a sentence for
    everything that can go wrong on the way.
    """
    if source.kind == "embedded":
        return fetch_embedded(progress)
    if source.kind == "published":
        return fetch_published(progress)
    if source.kind == "random":
        return random_folder(source.model, fetch_embedded(progress))
    if source.kind == "folder":
        check_folder(source.path)
        return source.path
    from engine.models.hub import fetch_hub

    return fetch_hub(source, progress)
