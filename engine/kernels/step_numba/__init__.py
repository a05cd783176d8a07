"""The library of step/decoder.cpp for machines without a C++ compiler: the same calls, compiled by numba.

The packed weights and the structures that describe them are those of the C++ step, and so are its results, but for
the last bits.
"""

import ctypes
import hashlib
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba
import numpy as np

from engine.kernels.step_numba.decoder import FEW, Shape, Text, step
from engine.kernels.step_numba.products import BFLOAT16, BLOCK, TOGETHER, Input
from engine.models.cache import folder


class Library:
    """What packed.py calls, with its structures; a handle is a Step.

    Compiling takes 8 s, once: the result is kept in Pitlane's folder.
    """

    built_by = "numba"

    def __init__(self, config: type, text: type):
        self.config, self.text = ctypes.POINTER(config), ctypes.POINTER(text)
        read = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
        place = folder() / "kernels" / f"numba-{hashlib.sha256(read).hexdigest()[:16]}"
        before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(place)
        self.step = numba.njit(nogil=True, error_model="numpy", cache=True)(step)
        numba.config.CACHE_DIR = before

    def decoder_open(self, config: Any) -> "Step":
        return Step(ctypes.cast(config, self.config).contents, self.step)

    def decoder_close(self, handle: "Step") -> None:
        handle.threads.shutdown()

    def decoder_step(self, handle: "Step", text: Any, logits: int) -> None:
        handle.run(ctypes.cast(text, self.text).contents, logits)


class Step:
    """One decoder's room for what is computed on the way, and its threads."""

    def __init__(self, config: Any, run: Any):
        c, most, threads = config, config.most, config.threads
        self.config, self.compiled = config, run
        layers = [_array(ctypes.addressof(c.layer[n]), ctypes.c_int64, 29) for n in range(c.layers)]
        self.table, self.head = np.stack(layers), _array(ctypes.addressof(c.head), ctypes.c_int64, 6)
        sizes = (c.hidden, int(self.table[0, 1]), c.heads * c.dim, 2 * c.feed)
        self.rooms = [np.zeros((most, size), np.float32) for size in sizes]
        shared = (np.zeros(24, np.int64), *_rooms(threads, TOGETHER * BLOCK, c.length + 16), *self.rooms)
        self.each, self.kept = np.arange(most), [shared]
        widest = max(c.hidden, c.feed, c.heads * c.dim)
        self.inputs = tuple(self._input(tokens, widest) for tokens in (*(FEW,) * threads, most))
        self.shape = Shape(
            c.layers, c.heads, c.kv_heads, c.dim, c.length, threads, bool(c.fine), bool(c.paired), c.epsilon, c.scale,
            c.cosines, c.sines, c.cache, c.final_norm, *(room.ctypes.data for room in shared),
        )  # fmt: skip
        self.threads = ThreadPoolExecutor(threads)

    def _input(self, tokens: int, widest: int) -> Input:
        size = tokens * widest
        kinds = {"f4": size, "i1": size, "u1": size, "f": tokens, "i4": size // BLOCK}
        rooms = [np.zeros(count, kind) for kind, count in kinds.items()]
        self.kept.append(rooms)
        return Input(*(room.ctypes.data for room in rooms))

    def run(self, text: Any, logits: int) -> None:
        """Read a text's tokens; logits is the address of [keep, vocabulary] floats, or None for the best."""
        self._embed(_array(text.ids, ctypes.c_int64, text.tokens))
        rows, vocabulary = int(self.head[1]), self.config.vocabulary
        found = np.empty((text.keep, rows), np.float32) if text.best or rows != vocabulary else None
        to = logits if found is None else found.ctypes.data
        said = Text(self.each.ctypes.data, text.rows, text.places, text.tokens, text.wanted or 0, text.keep)
        given = (self.shape, self.table, self.head, self.inputs, said, to)
        others = [self.threads.submit(self.compiled, number, *given) for number in range(1, self.shape.threads)]
        self.compiled(0, *given)
        for other in others:
            other.result()
        if text.best:
            found[:, _array(text.banned, ctypes.c_int64, text.bans) if text.bans else []] = -np.inf
            _array(text.best, ctypes.c_int64, text.keep)[:] = found[:, :vocabulary].argmax(-1)
        elif found is not None and text.keep:
            _array(logits, ctypes.c_float, text.keep, vocabulary)[:] = found[:, :vocabulary]

    def _embed(self, ids: np.ndarray) -> None:
        m = self.config.embedding
        words = m.depth // 2 if m.kind == BFLOAT16 else m.depth
        found = _array(m.data, ctypes.c_uint32, m.rows // BLOCK, words, BLOCK)[ids // BLOCK, :, ids % BLOCK]
        if m.kind == BFLOAT16:
            found = np.stack((found << 16, found & 0xFFFF0000), -1).reshape(len(ids), -1)
        self.rooms[0][: len(ids)] = found.view(np.float32)


def _rooms(threads: int, *sizes: int) -> list[np.ndarray]:
    return [np.zeros((threads, size), np.float32) for size in sizes]


def _array(address: int, kind: type, *shape: int) -> np.ndarray:
    """Memory that somebody else keeps."""
    return np.ctypeslib.as_array((kind * math.prod(shape)).from_address(address)).reshape(shape)
