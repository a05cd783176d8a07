"""Packed weights: matrices laid out in the order in which step/decoder.cpp reads them, and the step that reads them."""

import ctypes
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from engine.kernels.native import compiler, library
from engine.kernels.pages import Pages
from engine.refusal import Refusal

SOURCE = Path(__file__).parent / "step" / "decoder.cpp"
BLOCK, GROUP, PLACES = 32, 32, 16
"""Rows that lie together, weights that share a scale in 4 bits, and places of the cache that share a vector."""
KINDS = {"float32": 0, "bfloat16": 1, "int8": 2, "int4": 3}
MOST = 128
"""Tokens that are read at once, unless a decoder is told otherwise."""

Number, Address = ctypes.c_int64, ctypes.c_void_p
NUMBER = ctypes.sizeof(Number)


class _Matrix(ctypes.Structure):
    _fields_ = [("kind", Number), ("rows", Number), ("depth", Number), ("data", Address), ("scales", Address),
                ("sums", Address)]  # fmt: skip


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, _Matrix) for name in ("qkv", "out", "gate_up", "down")),
        *((name, Address) for name in ("attention_norm", "feed_norm", "query_norm", "key_norm", "bias")),
    ]


class _Config(ctypes.Structure):
    _fields_ = [
        *((name, Number) for name in ("layers", "hidden", "heads", "kv_heads", "dim", "feed", "vocabulary", "length",
                                      "most", "threads", "fine")),
        ("epsilon", ctypes.c_float), ("scale", ctypes.c_float),
        *((name, Address) for name in ("cosines", "sines", "final_norm")),
        ("head", _Matrix), ("embedding", _Matrix), ("layer", ctypes.POINTER(_Layer)), ("cache", Address),
    ]  # fmt: skip


class _Text(ctypes.Structure):
    _fields_ = [("ids", Address), ("rows", Address), ("places", Address), ("tokens", Number), ("wanted", Address),
                ("keep", Number), ("banned", Address), ("bans", Number), ("best", Address)]  # fmt: skip


class Matrix:
    """A weight [rows, depth] in one of KINDS; rows are filled up to whole blocks. The layouts: step/products.h.

    float32 weights that are bfloat16 numbers, as those of most checkpoints, lose nothing in half as many bytes and are
    kept so. int8 has a scale for each row, by its largest weight; int4 one of 16 bits for each group of 32 weights, by
    the largest of them, which becomes -8 (as in llama.cpp's Q4_0).
    """

    def __init__(self, weight: torch.Tensor, kind: str, pages: Pages):
        rows, self.depth = weight.shape
        exact = kind == "float32" and bool((weight == weight.bfloat16()).all())
        self.kind, self.rows = "bfloat16" if exact else kind, -(-rows // BLOCK) * BLOCK
        filled = torch.nn.functional.pad(weight.detach().float(), (0, 0, 0, self.rows - rows))
        self.tensors: list[torch.Tensor] = [pages.keep(part) for part in _LAYOUTS[self.kind](filled)]

    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors)

    def view(self) -> _Matrix:
        addresses = [tensor.data_ptr() for tensor in self.tensors]
        return _Matrix(KINDS[self.kind], self.rows, self.depth, *addresses, *[None] * (3 - len(addresses)))


def _float32(weight: torch.Tensor) -> list[torch.Tensor]:
    return [weight.view(-1, BLOCK, weight.shape[1]).transpose(1, 2)]


def _bfloat16(weight: torch.Tensor) -> list[torch.Tensor]:
    return [weight.bfloat16().view(-1, BLOCK, weight.shape[1] // 2, 2).transpose(1, 2)]


def _int8(weight: torch.Tensor) -> list[torch.Tensor]:
    scale = weight.abs().amax(1) / 127
    scale[scale == 0] = 1
    whole = (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
    packed = whole.view(-1, BLOCK, weight.shape[1] // 4, 4).transpose(1, 2)
    return [packed, scale, whole.sum(1, dtype=torch.int32)]


def _int4(weight: torch.Tensor) -> list[torch.Tensor]:
    groups = weight.view(len(weight), -1, GROUP)
    peak = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))[..., 0]
    scale = (peak / -8).bfloat16()
    scale[scale == 0] = 1
    whole = ((groups / scale.float()[..., None]).round().clamp(-8, 7) + 8).to(torch.uint8)
    halves = whole.view(-1, BLOCK, groups.shape[1], 2, 4, 4)
    packed = (halves[:, :, :, 0] | (halves[:, :, :, 1] << 4)).permute(0, 2, 3, 1, 4)
    return [packed, scale.view(-1, 2, BLOCK // 2, groups.shape[1]).permute(0, 3, 2, 1)]


_LAYOUTS = {"float32": _float32, "bfloat16": _bfloat16, "int8": _int8, "int4": _int4}


class Weights:
    """A Llama-like model's weights, packed: `kind` for the layers, `head` for the last product.

    Of the family Llama, Mistral, Qwen2 and Qwen3, as transformers builds them. The tokens' vectors stay plain numbers;
    those that are not `alone` have none, and are for a decoder beside another one.
    """

    def __init__(self, model: Any, kind: str, head: str, alone: bool = True):
        self.kind, self.config = kind, model.config
        pages = Pages()
        self.layers = [_layer(layer, kind, pages) for layer in model.model.layers]
        self.head = Matrix(model.get_output_embeddings().weight, head, pages)
        tied = not alone or (head in ("float32", "bfloat16") and model.config.tie_word_embeddings)
        self.embedding = self.head if tied else Matrix(model.get_input_embeddings().weight, "float32", pages)
        self.final_norm = model.model.norm.weight.detach().float()
        self.rotary = model.model.rotary_emb

    def matrices(self) -> Iterator[Matrix]:
        for layer in self.layers:
            yield from (layer[name] for name in ("qkv", "out", "gate_up", "down"))
        yield self.head
        if self.embedding is not self.head:
            yield self.embedding

    def bytes(self) -> int:
        return sum(matrix.bytes() for matrix in self.matrices())


def _layer(layer: Any, kind: str, pages: Pages) -> dict[str, Any]:
    """The matrices and vectors of one layer; what it lacks is None."""
    attention, feed = layer.self_attn, layer.mlp
    three = (attention.q_proj, attention.k_proj, attention.v_proj)
    bias = None if three[0].bias is None else torch.cat([one.bias for one in three])
    norms = [getattr(getattr(attention, name, None), "weight", None) for name in ("q_norm", "k_norm")]
    vectors = (layer.input_layernorm.weight, layer.post_attention_layernorm.weight, *norms, bias)
    return {
        "qkv": Matrix(torch.cat([one.weight for one in three]), kind, pages),
        "out": Matrix(attention.o_proj.weight, kind, pages),
        "gate_up": Matrix(torch.cat([feed.gate_proj.weight, feed.up_proj.weight]), kind, pages),
        "down": Matrix(feed.down_proj.weight, kind, pages),
        "vectors": [None if one is None else one.detach().float().contiguous() for one in vectors],
    }


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
        dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
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
            config.intermediate_size, self.vocabulary, self.length, most, threads, fine, config.rms_norm_eps, dim**-0.5,
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
            self.library.decoder_step(self.handle, ctypes.byref(text), logits[told:].data_ptr())
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
        self.library.decoder_step(self.handle, ctypes.byref(text), logits.data_ptr())
        return logits


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
