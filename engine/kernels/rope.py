"""Rotary positions of queries and keys, with the writing of keys and values into the cache, in one Triton kernel."""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl


@triton.jit
def _halves(source, weight, place, inside, half, eps, NORM: tl.constexpr):
    """The two halves of a head, normalised by their root mean square if NORM."""
    first = tl.load(source + place, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(source + half + place, mask=inside, other=0.0).to(tl.float32)
    if NORM:
        squares = tl.sum(first * first, axis=0) + tl.sum(second * second, axis=0)
        scale = 1.0 / tl.sqrt(squares / (2 * half) + eps)
        first *= scale * tl.load(weight + place, mask=inside, other=0.0).to(tl.float32)
        second *= scale * tl.load(weight + half + place, mask=inside, other=0.0).to(tl.float32)
    return first, second


@triton.jit
def _rope(
    q, k, v, cos, sin, q_weight, k_weight, turned, keys, values, start, cache_rows,
    tokens, heads, kv_heads, length, half, eps,
    q_batch, q_token, q_head, k_batch, k_token, k_head, v_batch, v_token, v_head,
    angle_batch, angle_token, start_batch,
    NORM: tl.constexpr, AWAY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program for one head of one token: queries first, then keys, then values."""
    row = tl.program_id(0)
    batch = (row // tokens).to(tl.int64)
    token = row % tokens
    head = tl.program_id(1)
    place = tl.arange(0, BLOCK)
    inside = place < half
    angles = batch * angle_batch + token * angle_token + place
    column = tl.load(start + batch * start_batch) + token
    slot = tl.load(cache_rows + batch) if AWAY else batch
    # a block compared with a scalar: Triton's interpreter widens a scalar comparison to an integer mask
    kept = place < tl.where(column < length, half, 0)
    if head < heads + kv_heads:
        c = tl.load(cos + angles, mask=inside, other=0.0).to(tl.float32)
        s = tl.load(sin + angles, mask=inside, other=0.0).to(tl.float32)
        if head < heads:
            source = q + batch * q_batch + token * q_token + head * q_head
            first, second = _halves(source, q_weight, place, inside, half, eps, NORM)
            target = turned + ((batch * heads + head) * tokens + token) * 2 * half
            kept = inside
        else:
            own = head - heads
            source = k + batch * k_batch + token * k_token + own * k_head
            first, second = _halves(source, k_weight, place, inside, half, eps, NORM)
            target = keys + ((slot * kv_heads + own) * length + column) * 2 * half
        kind = turned.dtype.element_ty
        tl.store(target + place, (first * c - second * s).to(kind), mask=kept)
        tl.store(target + half + place, (second * c + first * s).to(kind), mask=kept)
    else:
        own = head - heads - kv_heads
        source = v + batch * v_batch + token * v_token + own * v_head
        target = values + ((slot * kv_heads + own) * length + column) * 2 * half
        tl.store(target + place, tl.load(source + place, mask=inside, other=0.0), mask=kept)
        tl.store(target + half + place, tl.load(source + half + place, mask=inside, other=0.0), mask=kept)


@dataclass(frozen=True)
class HeadNorm:
    """The RMSNorm of every query and key head before the rotation (Qwen3): weights [head size]."""

    q: torch.Tensor
    k: torch.Tensor
    eps: float


def rope_into_cache(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    angles: tuple[torch.Tensor, torch.Tensor],
    cache: tuple[torch.Tensor, torch.Tensor],
    start: torch.Tensor,
    norm: HeadNorm | None = None,
    row: torch.Tensor | None = None,
) -> torch.Tensor:
    """Rotate `q` and `k`, and write `k` and `v` into the cache from column `start` on; the rotated queries.

    q [batch, tokens, heads, size]; k and v [batch, tokens, kv heads, size], each head dense; `angles` are cosine
    and sine [1 or batch, tokens, size], whose halves are equal; `cache` holds keys and values [batch, kv heads,
    length, size]; `start` is one int64 on the device, or one for each row. Returns [batch, heads, tokens, size].
    `row` int64 [batch], on the device, are the rows of a cache of more rows that are written, if given.
    Columns beyond the cache's length are not written. Source: Su et al. 2021, arXiv:2104.09864.
    """
    batch, tokens, heads, size = q.shape
    kv_heads = k.shape[2]
    keys, values = cache
    _check(q, k, v, keys, values)
    cos, sin = (angle if angle.stride(-1) == 1 else angle.contiguous() for angle in angles)
    turned = torch.empty(batch, heads, tokens, size, dtype=q.dtype, device=q.device)
    _rope[(batch * tokens, heads + 2 * kv_heads)](
        q, k, v, cos, sin, norm.q if norm else q, norm.k if norm else k, turned, keys, values, start,
        start if row is None else row, tokens, heads, kv_heads, keys.shape[2], size // 2, norm.eps if norm else 0.0,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        cos.stride(0) if cos.shape[0] > 1 else 0, cos.stride(1), 1 if start.numel() > 1 else 0,
        NORM=norm is not None, AWAY=row is not None, BLOCK=triton.next_power_of_2(size // 2), num_warps=1,
    )  # fmt: skip
    return turned


def _check(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
    """Raises ValueError for tensors that the kernel would misread."""
    if any(part.stride(-1) != 1 for part in (q, k, v)):
        raise ValueError("The values of a head must lie side by side.")
    if not (keys.is_contiguous() and values.is_contiguous()):
        raise ValueError("The cache must be dense.")
    if len({part.dtype for part in (q, k, v, keys, values)}) > 1:
        raise ValueError("Queries, keys, values and cache must have one number format.")
    if q.shape[-1] % 2 or {part.shape[-1] for part in (q, k, v, keys, values)} != {q.shape[-1]}:
        raise ValueError("Queries, keys, values and cache must have one even head size.")
