"""Attention of the newest tokens to one part of a row's columns, for the kernels that do it."""

import triton
import triton.language as tl


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
def divided(place, pad, SPLITS: tl.constexpr, LEAST: tl.constexpr, N: tl.constexpr):
    """How many parts the columns that a row sees have, where the first begins, and how many columns a part has."""
    # divided as they are now: a short context in a long cache has few parts
    base = tl.minimum(pad, place) // N * N
    chunk = tl.maximum(tl.cdiv(place - base, SPLITS * N) * N, LEAST)
    active = tl.maximum(tl.cdiv(place - base, chunk), 1)
    return active, base, chunk


@triton.jit
def attended(
    qkv, cosines, sines, keys, values, q_weight, k_weight, out, parts, peaks, totals, arrived,
    split, head, row, active, base, chunk, place, pad, length, turn, scale, eps,
    TOKENS: tl.constexpr, GROUP: tl.constexpr, HEADS: tl.constexpr, SIZE: tl.constexpr, SPLITS: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, R: tl.constexpr, TILE: tl.constexpr,
    NORM: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """All queries of a kv head meet part `split` of the `active` ones of its row's columns, see `divided`."""
    KV: tl.constexpr = HEADS // GROUP
    ROWS: tl.constexpr = TOKENS * GROUP
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
