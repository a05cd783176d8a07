"""A Llama-like model's whole pass over new tokens in a few Triton kernels a layer, over packed weights."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.functional import linear, scaled_dot_product_attention

from engine.kernels.decode_attention import Parts, decode_attention, workspace
from engine.kernels.early import pays
from engine.kernels.matrix import Matrix
from engine.kernels.rms_norm import rms_norm
from engine.kernels.rope import HeadNorm, rope_into_cache
from engine.kernels.skinny import SKINNY, Norm, product
from engine.kernels.swiglu import swiglu

WIDEST = 16
"""New tokens of a row that the decode kernels take; longer texts are read by the library's products and attention."""
Attend = Callable[[int, torch.Tensor], torch.Tensor]


class Layer:
    """One layer's matrices and vectors; merged where one input meets several."""

    def __init__(self, plain: Any, kind: str):
        attention, feed = plain.self_attn, plain.mlp
        three = (attention.q_proj, attention.k_proj, attention.v_proj)
        eps = plain.input_layernorm.variance_epsilon
        self.qkv = Matrix(torch.cat([part.weight for part in three]), kind)
        self.bias = None if three[0].bias is None else torch.cat([part.bias for part in three])
        self.out = Matrix(attention.o_proj.weight, kind)
        self.gate_up = Matrix(torch.cat([feed.gate_proj.weight, feed.up_proj.weight]), kind)
        self.down = Matrix(feed.down_proj.weight, kind)
        self.attention_norm = Norm(plain.input_layernorm.weight.detach(), eps)
        self.feed_norm = Norm(plain.post_attention_layernorm.weight.detach(), eps)
        self.heads = HeadNorm(attention.q_norm.weight, attention.k_norm.weight, attention.q_norm.variance_epsilon) if (
            hasattr(attention, "q_norm")
        ) else None  # fmt: skip

    def matrices(self) -> Iterator[Matrix]:
        yield from (self.qkv, self.out, self.gate_up, self.down)


class Weights:
    """A model of the family Llama, Mistral, Qwen2 and Qwen3: `kind` for the layers, `head` for the last product."""

    def __init__(self, model: Any, kind: str, head: str):
        config = model.config
        self.kind, self.config, self.dtype = kind, config, model.dtype
        self.layers = [Layer(layer, kind) for layer in model.model.layers]
        self.head = Matrix(model.get_output_embeddings().weight, head)
        self.embedding = model.get_input_embeddings().weight.detach()
        self.norm = Norm(model.model.norm.weight.detach(), model.model.norm.variance_epsilon)
        self.rotary = model.model.rotary_emb
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads

    def matrices(self) -> Iterator[Matrix]:
        for layer in self.layers:
            yield from layer.matrices()
        yield self.head

    def bytes(self) -> int:
        apart = self.head.weight.data_ptr() != self.embedding.data_ptr()
        embedding = self.embedding.numel() * self.embedding.element_size() if apart else 0
        return sum(matrix.bytes() for matrix in self.matrices()) + embedding


class Context:
    """Keys and values of `rows` texts of up to `length` tokens, the tables of angles, and where each text begins.

    `cache` [layers, 2, rows, kv heads, length, size]; `place` [1] is the column that is written next, `pad` [rows]
    the columns before each text.
    """

    def __init__(self, weights: Weights, rows: int, length: int):
        device = weights.embedding.device
        shape = (len(weights.layers), 2, rows, weights.kv_heads, length, weights.size)
        self.rows, self.length = rows, length
        self.cache = torch.zeros(shape, dtype=weights.dtype, device=device)
        places = torch.arange(length, device=device)[None]
        self.angles = tuple(turn[0].float() for turn in weights.rotary(torch.zeros(1, device=device), places))
        self.place = torch.zeros(1, dtype=torch.long, device=device)
        self.pad = torch.zeros(rows, dtype=torch.long, device=device)


class Pass:
    """The pass over `tokens` new tokens of every row of a context; they begin at its `place`.

    Up to WIDEST tokens it neither reads a value on the host nor allocates what outlives it, so it can be recorded.
    """

    def __init__(self, weights: Weights, context: Context, tokens: int):
        self.weights, self.context, self.tokens = weights, context, tokens
        self.room: Parts | None = None
        self.soon = pays(weights.embedding.shape[1], context.place.device)
        if tokens <= WIDEST:
            shape = (weights.heads, weights.kv_heads, weights.size, context.length, context.place.device)
            self.room = workspace(context.rows, tokens, *shape)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Of vectors [rows x tokens, hidden] that are `run` through already: float32 [rows x tokens, vocabulary]."""
        return _through(hidden, self.weights.head, self.weights.norm, dtype=torch.float32, soon=self.soon)

    def run(self, hidden: torch.Tensor, attend: Attend | None = None) -> torch.Tensor:
        """All layers: [rows x tokens, hidden] in and out."""
        attend, soon = attend or self.newest, self.soon
        for number, layer in enumerate(self.weights.layers):
            qkv = _through(hidden, layer.qkv, layer.attention_norm, layer.bias, soon=soon)
            hidden = _through(attend(number, qkv), layer.out, residual=hidden, soon=soon)
            gated = _through(hidden, layer.gate_up, layer.feed_norm, gated=True, soon=soon)
            hidden = _through(gated, layer.down, residual=hidden, soon=soon)
        return hidden

    def newest(self, number: int, qkv: torch.Tensor) -> torch.Tensor:
        """The attention of up to WIDEST new tokens of every row in a layer; their keys and values are kept."""
        context = self.context
        folded = qkv.view(context.rows, self.tokens, -1)
        cache, norm = context.cache[number], self.weights.layers[number].heads
        found = decode_attention(
            folded,
            context.angles,
            (cache[0], cache[1]),
            context.place,
            context.pad,
            self.room,
            norm=norm,
            soon=self.soon,
        )
        return found.flatten(0, 1)

    def read(self, ids: torch.Tensor, place: int, ragged: bool) -> torch.Tensor:
        """Read ids [rows, tokens] from column `place` on with the library's attention: [rows x tokens, hidden]."""
        context, weights = self.context, self.weights
        end = place + self.tokens
        columns = torch.arange(place, end, device=ids.device)
        places = (columns - context.pad[:, None]).clamp(min=0) if ragged else columns[None]
        angles = tuple(turn[places] for turn in context.angles)
        context.place.fill_(place)
        seen = _seen(columns, end, context.pad) if place or ragged else None

        def attend(number: int, qkv: torch.Tensor) -> torch.Tensor:
            heads = qkv.view(context.rows, self.tokens, -1, weights.size)
            q, k, v = heads.split([weights.heads, weights.kv_heads, weights.kv_heads], 2)
            keys, values = context.cache[number]
            turned = rope_into_cache(q, k, v, angles, (keys, values), context.place, weights.layers[number].heads)
            found = scaled_dot_product_attention(
                turned, keys[:, :, :end], values[:, :, :end], attn_mask=seen, is_causal=seen is None,
                enable_gqa=weights.heads != weights.kv_heads,
            )  # fmt: skip
            return found.transpose(1, 2).reshape(context.rows * self.tokens, -1)

        return self.run(weights.embedding[ids.flatten()], attend)


def _seen(columns: torch.Tensor, end: int, pad: torch.Tensor) -> torch.Tensor:
    """The columns that each new token sees, [rows, 1, tokens, columns]; one before its text sees itself."""
    every = torch.arange(end, device=columns.device)
    near = every <= columns[:, None]
    text = every >= pad[:, None, None]
    return ((near & text) | (every == columns[:, None]))[:, None]


def _through(
    x: torch.Tensor,
    matrix: Matrix,
    norm: Norm | None = None,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    gated: bool = False,
    dtype: torch.dtype | None = None,
    soon: bool = False,
) -> torch.Tensor:
    """A product with what comes before and after it: one kernel for few tokens, the library's for many."""
    if len(x) <= SKINNY:
        out = x.new_empty(len(x), matrix.rows // 2 if gated else matrix.rows, dtype=dtype or x.dtype)
        return product(x, matrix, out, norm, bias, residual, gated, soon)
    normed = rms_norm(x, norm.gain, norm.eps)[0] if norm else x
    found = linear(normed, matrix.dense(x.dtype), bias)
    if gated:
        found = swiglu(*found.chunk(2, -1))
    if residual is not None:
        found += residual
    return found if dtype is None else found.to(dtype)
