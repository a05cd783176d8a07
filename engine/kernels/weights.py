"""Packed weights: matrices laid out in the order in which step/decoder.cpp reads them."""

import ctypes
from collections.abc import Iterator
from typing import Any

import torch

from engine.kernels.pages import Pages

BLOCK, GROUP = 32, 32
"""Rows that lie together, and weights that share a scale in 4 bits."""
KINDS = {"float32": 0, "bfloat16": 1, "int8": 2, "int4": 3}
Number, Address = ctypes.c_int64, ctypes.c_void_p


class View(ctypes.Structure):
    """A matrix as the compiled step sees it."""

    _fields_ = [("kind", Number), ("rows", Number), ("depth", Number), ("data", Address), ("scales", Address),
                ("sums", Address)]  # fmt: skip


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

    def view(self) -> View:
        addresses = [tensor.data_ptr() for tensor in self.tensors]
        return View(KINDS[self.kind], self.rows, self.depth, *addresses, *[None] * (3 - len(addresses)))


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
        dim, norm = head_dim(self.config), hasattr(model.model.layers[0].self_attn, "q_norm")
        self.paired = None if norm or dim % BLOCK else dim
        self.layers = [_layer(layer, kind, pages, self.paired) for layer in model.model.layers]
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


def head_dim(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _paired(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Rows of the first and the second in turns of 16, so that a block holds both numbers of 16 pairs."""
    parts = [one.unflatten(0, (-1, BLOCK // 2)) for one in (first, second)]
    return torch.stack(parts, 1).flatten(0, 2)


def _three(parts: list[torch.Tensor], dim: int | None) -> torch.Tensor:
    """Rows of queries, keys and values; of the first two each head's halves in turns, where a head has `dim` rows.

    RoPE turns two numbers that lie half a head apart.
    """
    if dim:
        turned = (head.chunk(2) for one in parts[:2] for head in one.split(dim))
        parts = [*(_paired(*halves) for halves in turned), parts[2]]
    return torch.cat(parts)


def _layer(layer: Any, kind: str, pages: Pages, dim: int | None) -> dict[str, Any]:
    """The matrices and vectors of one layer; what it lacks is None."""
    attention, feed = layer.self_attn, layer.mlp
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    bias = None if projections[0].bias is None else _three([one.bias for one in projections], dim)
    if bias is not None:
        bias = torch.nn.functional.pad(bias, (0, -len(bias) % BLOCK))
    norms = [getattr(getattr(attention, name, None), "weight", None) for name in ("q_norm", "k_norm")]
    vectors = (layer.input_layernorm.weight, layer.post_attention_layernorm.weight, *norms, bias)
    return {
        "qkv": Matrix(_three([one.weight for one in projections], dim), kind, pages),
        "out": Matrix(attention.o_proj.weight, kind, pages),
        "gate_up": Matrix(_paired(feed.gate_proj.weight, feed.up_proj.weight), kind, pages),
        "down": Matrix(feed.down_proj.weight, kind, pages),
        "vectors": [None if one is None else one.detach().float().contiguous() for one in vectors],
    }
