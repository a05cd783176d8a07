"""Products of one row of inputs with a matrix of 8 or 4 bits, in whole numbers: four at a time."""

import triton
import triton.language as tl

from engine.kernels.epilogue import finished

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
MOST = tl.constexpr(32512.0)
"""The largest input as a whole number, of 16 bits: 256 times a signed byte and an unsigned one."""
ROUNDING = tl.constexpr(12582912.0)
"""1.5 x 2^23: added to a float32 it leaves the nearest whole number in the last bits."""
WORDS = tl.constexpr(4)
"""Neighbouring words of a row, 16 bytes: they share one scale of their inputs, and a thread reads them at once."""


@triton.jit
def _dot(weights, inputs, total, SIGNED: tl.constexpr):
    """total + the products of the four unsigned bytes of a word with four bytes, which may be signed."""
    if INTERPRETED:
        for place in tl.static_range(4):
            byte = (inputs >> 8 * place) & 255
            total = total + ((weights >> 8 * place) & 255) * ((byte ^ 128) - 128 if SIGNED else byte)
    elif SIGNED:
        total = tl.inline_asm_elementwise(
            "dp4a.u32.s32 $0, $1, $2, $3;", "=r,r,r,r", [weights, inputs, total], dtype=tl.int32, is_pure=True, pack=1
        )
    else:
        total = tl.inline_asm_elementwise(
            "dp4a.u32.u32 $0, $1, $2, $3;", "=r,r,r,r", [weights, inputs, total], dtype=tl.int32, is_pure=True, pack=1
        )
    return total


@triton.jit
def _asked():
    """Zero after a barrier: sums that begin with it cannot be taken before the loads ahead of it are asked for."""
    found = tl.zeros((1,), tl.int32)
    if not INTERPRETED:
        found = tl.inline_asm_elementwise(
            "{ .reg .pred no; setp.ne.s32 no, $1, $1; bar.red.popc.u32 $0, 0, no; }",
            "=r,r", [found], dtype=tl.int32, is_pure=False, pack=1,
        )  # fmt: skip
    return tl.sum(found, 0)


@triton.jit
def _larger(a, b):
    """A number that is none stays none: a scale made of it spoils the result, as it should."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _read(
    x, gain, chunk, PLACE: tl.constexpr, square, DEPTH: tl.constexpr, NORM: tl.constexpr, BITS: tl.constexpr,
    BLOCK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """The inputs [chunks, WORDS] that meet the numbers at one place of the words, and the squares with them."""
    each: tl.constexpr = BLOCK * BITS // 32 // WORDS
    column = (chunk // each * BLOCK + PLACE * (each * WORDS) + chunk % each * WORDS)[:, None]
    column += tl.arange(0, WORDS)[None, :]
    known = (chunk < DEPTH * BITS // 32 // WORDS)[:, None]
    v = (tl.load(x + column) if WHOLE else tl.load(x + column, mask=known, other=0.0)).to(tl.float32)
    if NORM:
        square += v * v
        g = tl.load(gain + column) if WHOLE else tl.load(gain + column, mask=known, other=0.0)
        v *= g.to(tl.float32)
    return v, square


@triton.jit
def _four(
    x, gain, chunk, FIRST: tl.constexpr, STEP: tl.constexpr, square, DEPTH: tl.constexpr, NORM: tl.constexpr,
    BITS: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """The inputs of four places and the largest of them [chunks]."""
    a, square = _read(x, gain, chunk, FIRST, square, DEPTH, NORM, BITS, BLOCK, WHOLE)
    b, square = _read(x, gain, chunk, FIRST + STEP, square, DEPTH, NORM, BITS, BLOCK, WHOLE)
    c, square = _read(x, gain, chunk, FIRST + 2 * STEP, square, DEPTH, NORM, BITS, BLOCK, WHOLE)
    d, square = _read(x, gain, chunk, FIRST + 3 * STEP, square, DEPTH, NORM, BITS, BLOCK, WHOLE)
    peak = _larger(_larger(tl.abs(a), tl.abs(b)), _larger(tl.abs(c), tl.abs(d)))
    return a, b, c, d, peak, square


@triton.jit
def _packed(a, b, c, d, finer):
    """Words of the upper and of the lower bytes of four inputs each, as whole numbers of 16 bits."""
    a = (a * finer + ROUNDING).to(tl.int32, bitcast=True)
    b = (b * finer + ROUNDING).to(tl.int32, bitcast=True)
    c = (c * finer + ROUNDING).to(tl.int32, bitcast=True)
    d = (d * finer + ROUNDING).to(tl.int32, bitcast=True)
    if INTERPRETED:
        upper = ((a >> 8) & 255) | (b & 65280) | ((c & 65280) << 8) | ((d & 65280) << 16)
        lower = (a & 255) | ((b & 255) << 8) | ((c & 255) << 16) | (d << 24)
    else:
        upper, lower = tl.inline_asm_elementwise(
            """{
            .reg .b32 front, back;
            prmt.b32 front, $2, $3, 0x5140;
            prmt.b32 back, $4, $5, 0x5140;
            prmt.b32 $0, front, back, 0x7632;
            prmt.b32 $1, front, back, 0x5410;
            }""",
            "=r,=r,r,r,r,r", [a, b, c, d], dtype=(tl.int32, tl.int32), is_pure=True, pack=1,
        )  # fmt: skip
    return upper, lower


@triton.jit
def _inputs(
    x, gain, chunk, square, DEPTH: tl.constexpr, NORM: tl.constexpr, BITS: tl.constexpr, BLOCK: tl.constexpr,
    WHOLE: tl.constexpr,
):  # fmt: skip
    """Inputs as whole numbers.

    Words [chunks, WORDS] of the upper and lower bytes of those that meet even places of four bits, then of odd ones;
    what the weights' being half their range too large adds [chunks], the scale [chunks], and the squares.
    """
    STEP: tl.constexpr = 2 if BITS == 4 else 1
    a, b, c, d, peak, square = _four(x, gain, chunk, 0, STEP, square, DEPTH, NORM, BITS, BLOCK, WHOLE)
    if BITS == 4:
        e, f, g, h, other, square = _four(x, gain, chunk, 1, STEP, square, DEPTH, NORM, BITS, BLOCK, WHOLE)
        peak = _larger(peak, other)
    peak = tl.reduce(peak, 1, _larger)
    finer = (1.0 / tl.where(peak > 0, peak, 1.0) * MOST)[:, None]
    upper, lower = _packed(a, b, c, d, finer)
    excess = _dot(tl.full(upper.shape, 0x01010101, tl.int32), upper, 0, True) * 256
    excess = _dot(tl.full(upper.shape, 0x01010101, tl.int32), lower, excess, False)
    odd, odd_lower = upper, lower
    if BITS == 4:
        odd, odd_lower = _packed(e, f, g, h, finer)
        more = _dot(tl.full(upper.shape, 0x01010101, tl.int32), odd, 0, True) * 256
        excess += _dot(tl.full(upper.shape, 0x01010101, tl.int32), odd_lower, more, False)
    return upper, lower, odd, odd_lower, tl.sum(excess, 1) * (1 << BITS - 1), peak / MOST, square


@triton.jit
def _met(w, scale, upper, lower, odd, odd_lower, excess, step, zero, BITS: tl.constexpr):
    """What words [rows, words] and their scales add to the sums of their rows, still apart by chunks."""
    rows: tl.constexpr = w.shape[0]
    chunks: tl.constexpr = w.shape[1] // WORDS
    w = tl.reshape(w, (rows, chunks, WORDS))
    upper, lower, odd, odd_lower = upper[None, :, :], lower[None, :, :], odd[None, :, :], odd_lower[None, :, :]
    if BITS == 4:
        even, w = w & 0x0F0F0F0F, (w >> 4) & 0x0F0F0F0F
        above = _dot(even, upper, _dot(w, odd, zero, True), True)
        below = _dot(even, lower, _dot(w, odd_lower, above * 256, False), False)
    else:
        below = _dot(w, lower, _dot(w, upper, zero, True) * 256, False)
    found = (tl.sum(below, 2) - excess[None, :]).to(tl.float32)
    found *= step[None, :]
    if BITS == 4:
        alike: tl.constexpr = chunks // scale.shape[1]
        every = tl.broadcast_to(scale.to(tl.float32)[:, :, None], (rows, scale.shape[1], alike))
        found *= tl.reshape(every, (rows, chunks))
    return found


@triton.jit
def _tile(
    weight, scales, row, first, ROWS: tl.constexpr, DEPTH: tl.constexpr, BITS: tl.constexpr, BLOCK: tl.constexpr,
    BK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """Words [rows, words] of a matrix for BK inputs from `first` on; with four bits the scales [rows, blocks]."""
    wide: tl.constexpr = DEPTH * BITS // 32
    many: tl.constexpr = DEPTH // BLOCK
    far = row.to(tl.int64)[:, None]
    word = (first * BITS // 32 + tl.arange(0, BK * BITS // 32))[None, :]
    block = (first // BLOCK + tl.arange(0, (BK + BLOCK - 1) // BLOCK))[None, :]
    if WHOLE:
        words = tl.load(weight + far * wide + word)
        scale = tl.load(scales + far * many + block) if BITS == 4 else 1.0
    else:
        known = (row < ROWS)[:, None]
        words = tl.load(weight + far * wide + word, mask=known & (word < wide), other=0)
        scale = tl.load(scales + far * many + block, mask=known & (block < many), other=0.0) if BITS == 4 else 1.0
    return words, scale


@triton.jit
def _lines(first, BN: tl.constexpr, ROWS: tl.constexpr, GATED: tl.constexpr):
    """BN rows from `first` on; with GATED each is followed by what it gates, a row of the second half."""
    if GATED:
        line = tl.arange(0, 2 * BN)
        row = first + line // 2 + line % 2 * ROWS
    else:
        row = first + tl.arange(0, BN)
    return row


@triton.jit
def _ended(
    total, square, first, scales, bias, residual, out, eps, ROWS: tl.constexpr, DEPTH: tl.constexpr,
    NORM: tl.constexpr, GATED: tl.constexpr, ADD: tl.constexpr, BIAS: tl.constexpr, BITS: tl.constexpr,
    BN: tl.constexpr,
):  # fmt: skip
    """The sums of rows, which are apart by chunks in `total`, are finished and stored."""
    found = tl.sum(total, 1)
    if NORM:
        found *= 1.0 / tl.sqrt(square / DEPTH + eps)
    row = first + tl.arange(0, BN)
    up = found
    if GATED:
        found, up = tl.split(tl.reshape(found, (BN, 2)))
    finished(found, up, row, row, scales, bias, residual, out, row < ROWS, ROWS, GATED, ADD, BIAS, BITS)


@triton.jit
def flat(
    x, gain, weight, scales, bias, residual, out, eps, ROWS: tl.constexpr, DEPTH: tl.constexpr,
    NORM: tl.constexpr, GATED: tl.constexpr, ADD: tl.constexpr, BIAS: tl.constexpr, BITS: tl.constexpr,
    BLOCK: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PROGRAMS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """All inputs at once: each of PROGRAMS has BN rows of the matrix in turn, and with GATED of its second half."""
    ALL: tl.constexpr = 2 * ROWS if GATED else ROWS
    WHOLE: tl.constexpr = DEPTH % BK == 0
    EVERY: tl.constexpr = BN * PROGRAMS
    FULL: tl.constexpr = WHOLE and ROWS % EVERY == 0
    TURNS: tl.constexpr = (ROWS + EVERY - 1) // EVERY
    chunk = tl.arange(0, BK * BITS // 32 // WORDS)
    first = tl.program_id(0) * BN
    row = _lines(first, BN, ROWS, GATED)
    # weights do not depend on the kernel ahead and may come while it still runs; each tile is asked for one early
    ahead, scale = _tile(weight, scales, row, 0, ALL, DEPTH, BITS, BLOCK, BK, FULL)
    tl.debug_barrier()  # the assembler would ask for them after the inputs
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    square = tl.zeros((BK * BITS // 32 // WORDS, WORDS), tl.float32)
    upper, lower, odd, odd_lower, excess, step, square = _inputs(
        x, gain, chunk, square, DEPTH, NORM, BITS, BLOCK, WHOLE
    )
    squares = tl.sum(tl.sum(square, 1), 0) if NORM else 0.0
    for turn in tl.range(0, TURNS, num_stages=1):
        w, beside, zero = ahead, scale, 0
        if TURNS > 1:
            ahead, scale = _tile(weight, scales, row + (turn + 1) * EVERY, 0, ALL, DEPTH, BITS, BLOCK, BK, False)
            zero = _asked()
        total = _met(w, beside, upper, lower, odd, odd_lower, excess, step, zero, BITS)
        _ended(
            total, squares, first + turn * EVERY, scales, bias, residual, out, eps,
            ROWS, DEPTH, NORM, GATED, ADD, BIAS, BITS, BN,
        )  # fmt: skip


@triton.jit
def deep(
    x, gain, weight, scales, bias, residual, out, eps, ROWS: tl.constexpr, DEPTH: tl.constexpr,
    NORM: tl.constexpr, GATED: tl.constexpr, ADD: tl.constexpr, BIAS: tl.constexpr, BITS: tl.constexpr,
    BLOCK: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """BK inputs at a time: each program has BN rows of the matrix, and with GATED as many of its second half."""
    ALL: tl.constexpr = 2 * ROWS if GATED else ROWS
    WHOLE: tl.constexpr = DEPTH % BK == 0
    FULL: tl.constexpr = WHOLE and ROWS % BN == 0
    CHUNKS: tl.constexpr = BK * BITS // 32 // WORDS
    first = tl.program_id(0) * BN
    row = _lines(first, BN, ROWS, GATED)
    ahead, scale = _tile(weight, scales, row, 0, ALL, DEPTH, BITS, BLOCK, BK, FULL)
    tl.debug_barrier()
    square = tl.zeros((CHUNKS, WORDS), tl.float32)
    total = tl.zeros((2 * BN if GATED else BN, CHUNKS), tl.float32)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    for start in tl.range(0, DEPTH, BK, num_stages=1):
        w, beside = ahead, scale
        ahead, scale = _tile(weight, scales, row, start + BK, ALL, DEPTH, BITS, BLOCK, BK, False)
        tl.debug_barrier()
        chunk = start * BITS // 32 // WORDS + tl.arange(0, CHUNKS)
        upper, lower, odd, odd_lower, excess, step, square = _inputs(
            x, gain, chunk, square, DEPTH, NORM, BITS, BLOCK, WHOLE
        )
        total += _met(w, beside, upper, lower, odd, odd_lower, excess, step, 0, BITS)
    squares = tl.sum(tl.sum(square, 1), 0) if NORM else 0.0
    _ended(
        total, squares, first, scales, bias, residual, out, eps,
        ROWS, DEPTH, NORM, GATED, ADD, BIAS, BITS, BN,
    )  # fmt: skip
