"""The compiled step over packed weights: what step/decoder.cpp is told, and what calls it."""

import ctypes
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.autograd import _profiler_enabled
from torch.profiler import record_function

from engine.kernels.native import compiler, library
from engine.kernels.weights import Address, Number, View, Weights, head_dim
from engine.refusal import Refusal

SOURCE = Path(__file__).parent / "step" / "decoder.cpp"
PLACES = 16
"""Places of the cache that share a vector."""
MOST = 128
"""Tokens that are read at once, unless a decoder is told otherwise."""

NAME = "pitlane::whole step"
"""What torch's profiler calls a step."""

NUMBER = ctypes.sizeof(Number)


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, View) for name in ("qkv", "out", "gate_up", "down")),
        *((name, Address) for name in ("attention_norm", "feed_norm", "query_norm", "key_norm", "bias")),
    ]


class _Config(ctypes.Structure):
    _fields_ = [
        *((name, Number) for name in ("layers", "hidden", "heads", "kv_heads", "dim", "feed", "vocabulary", "length",
                                      "most", "threads", "fine", "paired")),
        ("epsilon", ctypes.c_float), ("scale", ctypes.c_float),
        *((name, Address) for name in ("cosines", "sines", "final_norm")),
        ("head", View), ("embedding", View), ("layer", ctypes.POINTER(_Layer)), ("cache", Address),
    ]  # fmt: skip


class _Text(ctypes.Structure):
    _fields_ = [("ids", Address), ("rows", Address), ("places", Address), ("tokens", Number), ("wanted", Address),
                ("keep", Number), ("banned", Address), ("bans", Number), ("best", Address)]  # fmt: skip


class Decoder:
    """The compiled step over packed weights, with a cache of `length` tokens for each of `rows` texts.

    Raises Refusal where it cannot be built. `fine` inputs of integer products have 16 bits, others 8;
    those of bfloat16 weights are float32, others bfloat16 in a prompt. `beside` another decoder of the same model it
    reads and writes that one's cache, which has to be as large, and takes its tokens' vectors. At most
    `most` tokens go through the weights together.
    """

    def __init__(
        self, weights: Weights, length: int, threads: int, fine: bool, rows: int = 1, beside: "Decoder | None" = None,
        most: int = MOST,
    ):  # fmt: skip
        config = weights.config
        dim = head_dim(config)
        self.length = -(-length // PLACES) * PLACES
        self.vocabulary, self.weights, self.rows, self.most = config.vocab_size, weights, rows, most
        shape = (rows, config.num_hidden_layers, config.num_key_value_heads, 2, self.length, dim)
        self.cache = beside.cache if beside else torch.zeros(shape)
        embedding = (beside or self).weights.embedding
        places = torch.arange(self.length)[None]
        turns = weights.rotary(torch.zeros(1), places)
        self.turns = [turn[0, :, : dim // 2].float().contiguous() for turn in turns]
        self.layers = (_Layer * config.num_hidden_layers)(*map(_view, weights.layers))
        self.made = _Config(
            config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.num_key_value_heads, dim,
            config.intermediate_size, self.vocabulary, self.length, most, threads, fine, bool(weights.paired),
            config.rms_norm_eps, dim**-0.5,
            *(one.data_ptr() for one in (*self.turns, weights.final_norm)), weights.head.view(),
            embedding.view(), self.layers, self.cache.data_ptr(),
        )  # fmt: skip
        self.order = torch.arange(max(self.length, most))
        self.zeros = torch.zeros_like(self.order)
        self.library = _library()
        self.handle = self.library.decoder_open(ctypes.byref(self.made))

    @property
    def inputs(self) -> int | None:
        """Bits of the inputs of its integer products, as the compiled step was told; None where there are none."""
        whole = any(matrix.kind in ("int8", "int4") for matrix in self.weights.matrices())
        return (16 if self.made.fine else 8) if whole else None

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self.library.decoder_close(self.handle)

    def step(self, ids: torch.Tensor, rows: torch.Tensor, places: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Read `ids`, each of the text in its row, at its place; the tokens of a row stand together and in order.

        `wanted` are numbers of tokens, from small to large: their logits, float32 [wanted, vocabulary]. All int64.
        """
        logits = torch.empty(len(wanted), self.vocabulary)
        told = 0
        for first in range(0, len(ids), self.most):
            piece = slice(first, min(first + self.most, len(ids)))
            asked = wanted[(wanted >= first) & (wanted < piece.stop)] - first
            parts = [part[piece].contiguous() for part in (ids, rows, places)]
            text = _Text(*(part.data_ptr() for part in parts), len(parts[0]), asked.data_ptr(), len(asked))
            self._run(text, logits[told:])
            told += len(asked)
        return logits

    def follow(self, ids: torch.Tensor, place: int, keep: int) -> torch.Tensor:
        """As `step`, where there is one text: read ids [tokens] from `place` on, logits of the last `keep` of them.

        No tensor is made for its numbers: that took 36 µs, of 300 that a small draft's guess takes in all.
        """
        count = len(ids)
        if count > self.most:
            order = self.order
            return self.step(ids, self.zeros[:count], order[place : place + count], order[count - keep : count])
        first = self.order.data_ptr()
        text = _Text(
            ids.data_ptr(), self.zeros.data_ptr(), first + NUMBER * place, count, first + NUMBER * (count - keep), keep
        )  # fmt: skip
        logits = torch.empty(keep, self.vocabulary)
        self._run(text, logits)
        return logits

    def _run(self, text: _Text, logits: torch.Tensor) -> None:
        """The call itself, which a profiler sees as a piece of work with a name: no operator of torch is in it."""
        with record_function(NAME) if _profiler_enabled() else nullcontext():
            self.library.decoder_step(self.handle, ctypes.byref(text), logits.data_ptr())


class Chooser:
    """Reads one token of each of `rows`, all of them different and at most a decoder's `most`, none of them `banned`.

    Called with the tokens and their places it returns the likeliest next ones, the lowest of equals. Logits are
    compared where they are made: a tensor for them, in which torch looked for the largest, took 0.16 ms, of 3.3 that
    a step of int8 takes in all. What can be prepared is: after a step the caches hold weights, and Python is slow.
    """

    def __init__(self, decoder: Decoder, rows: Sequence[int], banned: Sequence[int]):
        self.ids, self.rows, self.places, self.best = ((Number * len(rows))(*rows) for _ in range(4))
        self.banned, self.decoder = (Number * len(banned))(*banned), decoder
        ids, own, places, bans, best = map(ctypes.addressof, (self.ids, self.rows, self.places, self.banned, self.best))
        text = _Text(ids, own, places, len(rows), decoder.order.data_ptr(), len(rows), bans, len(banned), best)
        self.text = ctypes.byref(text)

    def __call__(self, tokens: list[int], places: list[int]) -> list[int]:
        self.ids[:], self.places[:] = tokens, places
        self.decoder.library.decoder_step(self.decoder.handle, self.text, None)
        return self.best[:]


def _view(layer: dict[str, Any]) -> _Layer:
    matrices = [layer[name].view() for name in ("qkv", "out", "gate_up", "down")]
    return _Layer(*matrices, *(one if one is None else one.data_ptr() for one in layer["vectors"]))


def _library() -> Any:
    """The compiled step, by numba where there is no C++ compiler; its `built_by` says by what.

    Raises Refusal where there is neither.
    """
    try:
        compiler()
    except Refusal as missing:
        if not find_spec("numba"):
            raise Refusal(missing.why, "Install g++, or pip install numba.") from None
        return _by_numba()
    found = library(SOURCE, "-ffp-contract=off")
    found.built_by = "C++"
    found.decoder_open.restype, found.decoder_open.argtypes = Address, [Address]
    found.decoder_close.restype, found.decoder_close.argtypes = None, [Address]
    found.decoder_step.restype = None
    found.decoder_step.argtypes = [Address, Address, Address]
    return found


@cache
def _by_numba() -> Any:
    from engine.kernels.step_numba import Library

    return Library(_Config, _Text)
