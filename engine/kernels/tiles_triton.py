"""The tiled matrix product and the tiled attention in Triton, with the block sizes in the caller's hand."""

import torch
import triton
import triton.language as tl

LOG2E = 1.4426950408889634


@triton.jit
def _product(x, w, y, tokens, rows, depth, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    token = tl.program_id(0) * M + tl.arange(0, M)
    row = tl.program_id(1) * N + tl.arange(0, N)
    sums = tl.zeros((M, N), tl.float32)
    for start in range(0, depth, K):
        column = start + tl.arange(0, K)
        inside = column < depth
        left = tl.load(
            x + token[:, None] * depth + column[None, :], (token < tokens)[:, None] & inside[None, :], other=0.0
        )
        right = tl.load(w + row[:, None] * depth + column[None, :], (row < rows)[:, None] & inside[None, :], other=0.0)
        sums = tl.dot(left, tl.trans(right), sums, input_precision="ieee")
    tl.store(y + token[:, None] * rows + row[None, :], sums, (token < tokens)[:, None] & (row < rows)[None, :])


@triton.jit
def _single(x, w, y, rows, depth, K: tl.constexpr):
    token, row = tl.program_id(1), tl.program_id(0)
    column = tl.arange(0, K)
    left = tl.load(x + token * depth + column, column < depth, other=0.0).to(tl.float32)
    right = tl.load(w + row * depth + column, column < depth, other=0.0).to(tl.float32)
    tl.store(y + token * rows + row, tl.sum(left * right))


@triton.jit
def _attention(
    q, k, v, out, context, sharing, scale, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, dim: tl.constexpr
):
    head = tl.program_id(1)
    query = tl.program_id(0) * M + tl.arange(0, M)
    column = tl.arange(0, D)
    held = (query < context)[:, None] & (column < dim)[None, :]
    place = head * context * dim + query[:, None] * dim + column[None, :]
    queries = tl.load(q + place, held, other=0.0)
    peak = tl.full((M,), -1e30, tl.float32)
    total = tl.zeros((M,), tl.float32)
    sums = tl.zeros((M, D), tl.float32)
    base = head // sharing * context * dim
    for start in range(0, tl.minimum(context, (tl.program_id(0) + 1) * M), N):
        key = start + tl.arange(0, N)
        there = (key < context)[:, None] & (column < dim)[None, :]
        other = base + key[:, None] * dim + column[None, :]
        scores = tl.dot(queries, tl.trans(tl.load(k + other, there, other=0.0)), input_precision="ieee") * scale
        scores = tl.where((key[None, :] <= query[:, None]) & (key < context)[None, :], scores, -1e30)
        highest = tl.maximum(peak, tl.max(scores, 1))
        shrink = tl.exp2(peak - highest)
        weights = tl.exp2(scores - highest[:, None])
        total = total * shrink + tl.sum(weights, 1)
        values = tl.load(v + other, there, other=0.0)
        sums = tl.dot(weights.to(values.dtype), values, sums * shrink[:, None], input_precision="ieee")
        peak = highest
    tl.store(out + place, sums / total[:, None], held)


def product(x: torch.Tensor, w: torch.Tensor, tokens: int, rows: int, depth: int) -> torch.Tensor:
    """Y = X W^T; x [tokens, depth], w [rows, depth] → float32 [tokens, rows].

    A program makes a tile of `tokens` x `rows` results and reads `depth` numbers of each row at a time; all three
    are powers of two from 16 up. Sums are kept in float32.
    """
    result = torch.empty(len(x), len(w), device=x.device)
    grid = (triton.cdiv(len(x), tokens), triton.cdiv(len(w), rows))
    _product[grid](x, w, result, len(x), len(w), x.shape[1], M=tokens, N=rows, K=depth)
    return result


def product_untiled(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """The untiled twin: one program for each result, so that every token reads all of W for itself."""
    result = torch.empty(len(x), len(w), device=x.device)
    _single[(len(w), len(x))](x, w, result, len(w), x.shape[1], K=triton.next_power_of_2(x.shape[1]))
    return result


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, block: int, tile: int) -> torch.Tensor:
    """Causal attention with an online softmax (arXiv:2205.14135): `block` queries meet `tile` keys at a time.

    q [heads, context, dim], k and v [key heads, context, dim] → float32 [heads, context, dim]; block and tile are
    powers of two from 16 up.
    """
    heads, context, dim = q.shape
    result = torch.empty(q.shape, device=q.device)
    columns = max(16, triton.next_power_of_2(dim))
    grid, scale = (triton.cdiv(context, block), heads), LOG2E / dim**0.5
    _attention[grid](q, k, v, result, context, heads // len(k), scale, M=block, N=tile, D=columns, dim=dim)
    return result
