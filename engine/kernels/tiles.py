"""The compiled loop nests of tiles.cpp as functions of torch tensors on the processor, float32 and contiguous."""

import ctypes
from pathlib import Path
from typing import Any

import torch

from engine.kernels.native import library

SOURCE = Path(__file__).with_suffix(".cpp")
BLOCKS = (1, 2, 4, 8)
"""How many tokens can share a weight in a register."""


def product(
    x: torch.Tensor, w: torch.Tensor, tile: int, block: int = 1, threads: int = 1, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Y = X W^T; x [tokens, depth], w [rows, depth] → [tokens, rows], by tiles of `tile` rows of W.

    `block` tokens (1, 2, 4 or 8) use each weight while it is in a register. `tile` = rows with `block` = 1 is
    the untiled loop. Raises ValueError for any other block or a tile below 1.
    """
    tokens, depth = x.shape
    out = torch.empty(tokens, len(w)) if out is None else out
    _call("product", x, w, out, tokens, len(w), depth, tile, block, threads)
    return out


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, block: int, tile: int, threads: int = 1
) -> torch.Tensor:
    """Causal attention by tiles of `tile` keys for `block` queries at a time, with an online softmax.

    q [heads, context, dim], k and v [key heads, context, dim] → [heads, context, dim]; dim is a multiple of 16.
    Raises ValueError for a dim or a tile that does not fit. Source: arXiv:2205.14135.
    """
    out = torch.empty_like(q)
    heads, context, dim = q.shape
    _call("attention", q, k, v, out, heads, heads // len(k), context, dim, block, tile, threads)
    return out


def attention_whole(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, threads: int = 1) -> torch.Tensor:
    """The same attention with the whole score matrix written out: heads x context x context numbers."""
    out = torch.empty_like(q)
    heads, context, dim = q.shape
    _call("attention_whole", q, k, v, out, heads, heads // len(k), context, dim, threads)
    return out


def _call(name: str, *arguments: Any) -> None:
    if getattr(library(SOURCE), name)(*map(_argument, arguments)):
        raise ValueError(f"{name} has no loop for these sizes: {arguments[-3:]}")


def _argument(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return ctypes.c_int64(value)
    if value.dtype != torch.float32 or not value.is_contiguous() or value.device.type != "cpu":
        raise ValueError("the compiled loops take contiguous float32 tensors of the processor")
    return ctypes.c_void_p(value.data_ptr())
