"""The header of a GGUF file is read once while its model is loaded, however often transformers asks for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engine.models.resolve import gguf_file


@contextmanager
def read_once(folder: Path) -> Iterator[None]:
    """While it lasts, whoever makes a GGUFReader of a file gets the first one that was made of it.

    transformers reads the header anew for the configuration (three times, where it is asked for by itself as well),
    the tokenizer and the weights: 50,000 tokens, each with its merges and kinds, in Python; and for every module it
    makes the same table of all tensors' names, which is kept likewise. The readers are let go at the end, since they
    keep all of this in memory. Nothing happens for a folder without a GGUF file.
    """
    if not gguf_file(folder) or not find_spec("gguf"):
        yield
        return
    import gguf

    real, made, names = gguf.GGUFReader, {}, gguf.get_tensor_name_map

    def reader(path: Any, *modes: Any) -> Any:
        status = Path(path).stat()
        key = (str(path), status.st_mtime_ns, status.st_size, *modes)
        if key not in made:
            made[key] = real(path, *modes)
        return made[key]

    gguf.GGUFReader, gguf.get_tensor_name_map = reader, cache(names)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = real, names
