"""Attention of the newest tokens in one Triton kernel: head norm, rotation, cache write, one reading of the cache."""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from engine.kernels.early import early
from engine.kernels.rope import HeadNorm

LOG2E = 1.4426950408889634

PROGRAMS = 264
"""Programs that fill the chip: two for each of an H200's 132 multiprocessors."""
LEAST = 8192
"""Numbers of keys below which a part is not worth the meeting of the parts: 64 columns of 128, 128 of 64."""
GATHERED = 8192
"""Numbers of the parts that the last program reads at a time."""
NARROW, BROAD = (128, 2), (32, 3)
"""Columns of the cache in a step of the loop, and steps under way: for heads of up to 64 numbers, and of more."""


@triton.jit
def _turned(rows, weight, cosines, sines, angles, inside, eps, SIZE: tl.constexpr, D: tl.constexpr, NORM: tl.constexpr):
    """Heads [M, D] from the pointers `rows` [M], normalised if NORM, and rotated by the angles at `angles` [M]."""
    column = tl.arange(0, D)
    low = column < SIZE // 2
    partner = tl.where(low, column + SIZE // 2, column - SIZE // 2)
    own = tl.load(rows[:, None] + column[None, :], mask=inside, other=0.0).to(tl.float32)
    other = tl.load(rows[:, None] + partner[None, :], mask=inside, other=0.0).to(tl.float32)
    if NORM:
        size = column < SIZE
        scale = 1.0 / tl.sqrt(tl.sum(own * own, axis=1) / SIZE + eps)
        own *= scale[:, None] * tl.load(weight + column, mask=size, other=0.0).to(tl.float32)[None, :]
        other *= scale[:, None] * tl.load(weight + partner, mask=size, other=0.0).to(tl.float32)[None, :]
    at = angles[:, None] + tl.where(low, column, partner)[None, :]
    cos = tl.load(cosines + at, mask=inside, other=0.0).to(tl.float32)
    sin = tl.load(sines + at, mask=inside, other=0.0).to(tl.float32)
    return own * cos + other * tl.where(low[None, :], -sin, sin)


@triton.jit
def _dot(left, right, sums, WIDE: tl.constexpr):
    if WIDE:  # Triton's interpreter keeps bfloat16 as bits, which it would multiply as integers
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, sums, input_precision="ieee")


@triton.jit
def _met(queries, keys, values, seen, scale, peak, total, sums, WIDE: tl.constexpr):
    """The online softmax after one more block: queries [M, D], keys [D, N], values [N, D], seen [M, N]."""
    scores = _dot(queries, keys, tl.zeros(seen.shape, tl.float32), WIDE) * scale
    scores = tl.where(seen, scores, -1e30)
    highest = tl.maximum(peak, tl.max(scores, 1))
    shrink = tl.exp2(peak - highest)
    weights = tl.where(seen, tl.exp2(scores - highest[:, None]), 0.0)
    total = total * shrink + tl.sum(weights, 1)
    sums = _dot(weights.to(values.dtype), values, sums * shrink[:, None], WIDE)
    return highest, total, sums


@triton.jit
def _gathered(
    out, parts, peaks, totals, pair, active, row, head,
    SPLITS: tl.constexpr, SIZE: tl.constexpr, D: tl.constexpr, HEADS: tl.constexpr,
    GROUP: tl.constexpr, ROWS: tl.constexpr, R: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """The parts of one row and kv head become its result; parts are read past the first cache, which may be stale."""
    line, column = tl.arange(0, R), tl.arange(0, D)
    inside = (line < ROWS)[:, None] & (column < SIZE)[None, :]
    peak = tl.full((R,), -1e30, tl.float32)
    total = tl.zeros((R,), tl.float32)
    sums = tl.zeros((R, D), tl.float32)
    for start in range(0, active, TILE):
        part = start + tl.arange(0, TILE)
        there = part < active
        place = (pair * SPLITS + part)[:, None] * ROWS + line[None, :]
        held = there[:, None] & (line < ROWS)[None, :]
        part_peak = tl.load(peaks + place, mask=held, other=-1e30, cache_modifier=".cg")
        part_total = tl.load(totals + place, mask=held, other=0.0, cache_modifier=".cg")
        cube = there[:, None, None] & inside[None, :, :]
        at = place[:, :, None] * SIZE + column[None, None, :]
        part_sums = tl.load(parts + at, mask=cube, other=0.0, cache_modifier=".cg")
        highest = tl.maximum(peak, tl.max(part_peak, 0))
        shrink, weight = tl.exp2(peak - highest), tl.exp2(part_peak - highest[None, :])
        total = total * shrink + tl.sum(part_total * weight, 0)
        sums = sums * shrink[:, None] + tl.sum(part_sums * weight[:, :, None], 0)
        peak = highest
    result = sums / tl.where(total > 0, total, 1.0)[:, None]
    target = _targets(out, row, head, line, SIZE, HEADS, GROUP, ROWS)
    tl.store(target[:, None] + column[None, :], result.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _left(
    out, parts, peaks, totals, arrived, peak, total, sums, pair, split, active, row, head,
    SPLITS: tl.constexpr, SIZE: tl.constexpr, D: tl.constexpr, HEADS: tl.constexpr,
    GROUP: tl.constexpr, ROWS: tl.constexpr, M: tl.constexpr, R: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """A part is left for the program that comes last, which brings all parts together."""
    line, column = tl.arange(0, M), tl.arange(0, D)
    mine = (pair * SPLITS + split) * ROWS + line
    tl.store(peaks + mine, peak, mask=line < ROWS)
    tl.store(totals + mine, total, mask=line < ROWS)
    inside = (line < ROWS)[:, None] & (column < SIZE)[None, :]
    tl.store(parts + mine[:, None] * SIZE + column[None, :], sums, mask=inside)
    tl.debug_barrier()  # every thread has written before one of them says so
    if tl.atomic_add(arrived + pair, 1, sem="acq_rel", scope="gpu") == active - 1:
        _gathered(
            out, parts, peaks, totals, pair, active, row, head, SPLITS, SIZE, D, HEADS, GROUP, ROWS, R, TILE
        )  # fmt: skip
        tl.store(arrived + pair, 0)


@triton.jit
def _targets(out, row, head, line, SIZE: tl.constexpr, HEADS: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr):
    """Where the query rows of a kv head lie in the result [rows, tokens, heads x SIZE]."""
    return out + row * (ROWS // GROUP * HEADS * SIZE) + (line // GROUP * HEADS + head * GROUP + line % GROUP) * SIZE


@triton.jit
def _written(
    qkv, k_weight, cosines, sines, keys, values, row, head, place, pad, length, turn, eps,
    TOKENS: tl.constexpr, HEADS: tl.constexpr, KV: tl.constexpr, SIZE: tl.constexpr, D: tl.constexpr,
    NORM: tl.constexpr,
):  # fmt: skip
    """The keys and values [16, D] of the new tokens, also written into the cache of this row and head."""
    new, column = tl.arange(0, 16), tl.arange(0, D)
    fresh = (new < TOKENS)[:, None] & (column < SIZE)[None, :]
    source = qkv + (row * TOKENS + new) * ((HEADS + 2 * KV) * SIZE) + (HEADS + head) * SIZE
    angles = tl.maximum(place + new - pad, 0) * turn
    k = _turned(source, k_weight, cosines, sines, angles, fresh, eps, SIZE, D, NORM).to(qkv.dtype.element_ty)
    v = tl.load(source[:, None] + KV * SIZE + column[None, :], mask=fresh, other=0.0)
    target = (place + new)[:, None] * SIZE + column[None, :]
    fits = fresh & (place + new < length)[:, None]
    tl.store(keys + target, k, mask=fits)
    tl.store(values + target, v, mask=fits)
    return k, v


@triton.jit
def _decode(
    qkv, cosines, sines, keys, values, places, pads, q_weight, k_weight, out, parts, peaks, totals, arrived,
    length, turn, scale, eps,
    TOKENS: tl.constexpr, GROUP: tl.constexpr, HEADS: tl.constexpr, SIZE: tl.constexpr, SPLITS: tl.constexpr,
    LEAST: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, R: tl.constexpr, TILE: tl.constexpr,
    NORM: tl.constexpr, WIDE: tl.constexpr, OWN: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program for one part of the columns of one kv head of one row: all its TOKENS x GROUP queries."""
    split, head, row = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    KV: tl.constexpr = HEADS // GROUP
    ROWS: tl.constexpr = TOKENS * GROUP
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    place, pad = tl.load(places + row * OWN).to(tl.int32), tl.load(pads + row).to(tl.int32)
    # the columns that this row sees are divided as they are now: a short context in a long cache has few parts
    base = tl.minimum(pad, place) // N * N
    chunk = tl.maximum(tl.cdiv(place - base, SPLITS * N) * N, LEAST)
    active = tl.maximum(tl.cdiv(place - base, chunk), 1)
    if split >= active:
        return
    line, column = tl.arange(0, M), tl.arange(0, D)
    token = line // GROUP
    inside = (line < ROWS)[:, None] & (column < SIZE)[None, :]
    source = qkv + (row * TOKENS + token) * ((HEADS + 2 * KV) * SIZE) + (head * GROUP + line % GROUP) * SIZE
    angles = tl.maximum(place + token - pad, 0) * turn
    queries = _turned(source, q_weight, cosines, sines, angles, inside, eps, SIZE, D, NORM).to(qkv.dtype.element_ty)
    peak = tl.full((M,), -1e30, tl.float32)
    total = tl.zeros((M,), tl.float32)
    sums = tl.zeros((M, D), tl.float32)
    pair = row * KV + head
    keys += pair * length * SIZE
    values += pair * length * SIZE
    begin = base + split * chunk
    for start in range(begin, tl.minimum(begin + chunk, place), N):
        at = start + tl.arange(0, N)
        kept = (at >= pad) & (at < tl.where(at < length, place, 0))
        block = at * SIZE
        k = tl.load(keys + block[None, :] + column[:, None], mask=kept[None, :] & (column < SIZE)[:, None], other=0.0)
        v = tl.load(values + block[:, None] + column[None, :], mask=kept[:, None] & (column < SIZE)[None, :], other=0.0)
        seen = kept[None, :] & (line < ROWS)[:, None]
        peak, total, sums = _met(queries, k, v, seen, scale, peak, total, sums, WIDE)
    if split == active - 1:  # the last part also holds the new columns: it alone makes and writes them
        new = tl.arange(0, 16)
        k, v = _written(
            qkv, k_weight, cosines, sines, keys, values, row, head, place, pad, length, turn, eps,
            TOKENS, HEADS, KV, SIZE, D, NORM,
        )  # fmt: skip
        seen = (new[None, :] <= token[:, None]) & (place + new >= pad)[None, :] & (line < ROWS)[:, None]
        peak, total, sums = _met(queries, tl.trans(k), v, seen, scale, peak, total, sums, WIDE)
    if active == 1:
        result = sums / tl.where(total > 0, total, 1.0)[:, None]
        target = _targets(out, row, head, line, SIZE, HEADS, GROUP, ROWS)
        tl.store(target[:, None] + column[None, :], result.to(out.dtype.element_ty), mask=inside)
    elif SPLITS > 1:
        _left(
            out, parts, peaks, totals, arrived, peak, total, sums, pair, split, active, row, head,
            SPLITS, SIZE, D, HEADS, GROUP, ROWS, M, R, TILE,
        )  # fmt: skip


@dataclass(frozen=True)
class Parts:
    """What the programs of a row and kv head leave for the last of them; one is enough for all layers of a stream.

    parts float32 [rows, kv heads, splits, tokens x group, size], peaks and totals float32 without the last axis,
    arrived int32 [rows, kv heads], zero between two launches. `splits` is the most parts of a row's columns.
    """

    splits: int
    parts: torch.Tensor
    peaks: torch.Tensor
    totals: torch.Tensor
    arrived: torch.Tensor


def workspace(
    rows: int, tokens: int, heads: int, kv_heads: int, size: int, length: int, device: torch.device | str
) -> Parts:
    """The workspace of `decode_attention`: for `tokens` new ones in each row and a cache of `length` columns."""
    splits = max(1, min(triton.cdiv(PROGRAMS, rows * kv_heads), triton.cdiv(length, _least(size))))
    lines = rows * kv_heads * splits * tokens * (heads // kv_heads)
    peaks, totals = torch.zeros(2, lines, device=device)
    parts = torch.zeros(lines * size, device=device)
    return Parts(splits, parts, peaks, totals, torch.zeros(rows * kv_heads, dtype=torch.int32, device=device))


def _least(size: int) -> int:
    """Columns of the smallest part: whole steps of the loop."""
    columns, _ = NARROW if size <= 64 else BROAD
    return max(1, LEAST // (size * columns)) * columns


def decode_attention(
    qkv: torch.Tensor,
    angles: tuple[torch.Tensor, torch.Tensor],
    cache: tuple[torch.Tensor, torch.Tensor],
    place: torch.Tensor,
    pad: torch.Tensor,
    room: Parts,
    out: torch.Tensor | None = None,
    norm: HeadNorm | None = None,
    scale: float | None = None,
    soon: bool = False,
) -> torch.Tensor:
    """Rotate and cache the newest 1 to 16 tokens of every row, and attend to all columns so far.

    qkv [rows, tokens, (heads + 2 kv heads) x size], dense: queries, keys, values of a merged projection.
    angles: cosines and sines float32 [context, size / 2] (half a table is half the bytes; [context, size] does as
    well, its first half is read); token t of row r has position place + t - pad[r].
    cache: keys and values [rows, kv heads, length, size], dense, in qkv's number format; columns place to
    place + tokens - 1 are written here, as far as the cache reaches.
    place: int64, column of the first new token, [rows] or [1] for all of them; pad: int64 [rows], columns before it
    are not seen: token t sees column c if pad <= c <= place + t.
    room: of `workspace`, for the same sizes; norm: weights of the heads' RMSNorm before the rotation (Qwen3).
    scale: of the scores, 1 / sqrt(size) unless given. Sums are float32. soon: begun before the kernel ahead has ended.
    Returns [rows, tokens, heads x size], in `out` if given. One launch of a fixed grid, nothing read by the host.
    Raises ValueError for tensors that it would misread. Source: Dao et al., flash decoding (arXiv:2307.08691).
    """
    keys, values = cache
    rows, kv_heads, length, size = keys.shape
    tokens, heads = qkv.shape[1], qkv.shape[2] // size - 2 * kv_heads
    _check(qkv, angles, keys, values, place, heads, room)
    out = torch.empty(rows, tokens, heads * size, dtype=qkv.dtype, device=qkv.device) if out is None else out
    lines, columns = tokens * heads // kv_heads, max(16, triton.next_power_of_2(size))
    wide = columns * keys.element_size()
    block, stages = NARROW if size <= 64 else BROAD
    block = block if wide <= 512 else min(block, 32)
    several = triton.next_power_of_2(lines)
    _decode[(room.splits, kv_heads, rows)](
        qkv, *angles, keys, values, place, pad, norm.q if norm else qkv, norm.k if norm else qkv, out,
        room.parts, room.peaks, room.totals, room.arrived,
        length, angles[0].stride(0), LOG2E * (size**-0.5 if scale is None else scale), norm.eps if norm else 0.0,
        TOKENS=tokens, GROUP=heads // kv_heads, HEADS=heads, SIZE=size, SPLITS=room.splits, LEAST=_least(size),
        M=max(16, several), N=block, D=columns, R=several, OWN=int(place.numel() > 1),
        TILE=min(triton.next_power_of_2(room.splits), max(1, GATHERED // (several * columns))),
        NORM=norm is not None, WIDE=triton.knobs.runtime.interpret and qkv.dtype == torch.bfloat16,
        num_warps=4 if several <= 32 else 8, num_stages=stages if wide <= 256 else 2, **early(soon),
    )  # fmt: skip
    return out


def _check(qkv, angles, keys, values, place, heads: int, room: Parts) -> None:
    """Raises ValueError for tensors that the kernel would misread."""
    rows, kv_heads, _, size = keys.shape
    tokens = qkv.shape[1]
    if not (qkv.is_contiguous() and keys.is_contiguous() and values.is_contiguous()):
        raise ValueError("The projection and the cache must be dense.")
    if len({qkv.dtype, keys.dtype, values.dtype}) > 1:
        raise ValueError("Queries, keys, values and cache must have one number format.")
    if size % 2 or heads < 1 or heads % kv_heads or qkv.shape != (rows, tokens, (heads + 2 * kv_heads) * size):
        raise ValueError("The projection must hold a group of heads of an even size for each kv head of the cache.")
    if not 1 <= tokens <= 16:
        raise ValueError(f"The kernel takes 1 to 16 new tokens in a row, not {tokens}.")
    if any(table.stride(-1) != 1 or table.stride(0) != angles[0].stride(0) for table in angles):
        raise ValueError("The tables of angles must have rows that lie alike.")
    if room.peaks.numel() != rows * room.splits * tokens * heads or place.numel() not in (1, rows):
        raise ValueError("The workspace or the places were made for other sizes.")
