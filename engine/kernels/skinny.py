"""Products of few rows with a large matrix, as in a decode step: what comes before and after is part of the kernel."""

from dataclasses import dataclass
from functools import cache

import torch
import triton
import triton.language as tl

from engine.kernels.early import early
from engine.kernels.epilogue import finished
from engine.kernels.matrix import Matrix
from engine.kernels.tiling import DEEP, deep_tile, flat_tile, matrix_tile, vector_tile
from engine.kernels.whole import deep, flat

ONE = tl.constexpr(0x3F800000)
"""The bits of 1 as a float32: a whole number u put into the first BITS of the 23 after them makes it 1 + u / 2^BITS."""
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
SKINNY = 64
"""From more rows on a library's products of whole tiles are faster."""


@triton.jit
def _fractions(words, PLACE: tl.constexpr, BITS: tl.constexpr):
    """1 + u / _span of the numbers u at one place of 32-bit words, by a mask, and a shift for each two."""
    shift: tl.constexpr = 23 - 2 * BITS - PLACE // 2 * 2 * BITS
    moved = words << shift if shift > 0 else words >> -shift
    mask: tl.constexpr = ((1 << BITS) - 1) << (23 - BITS if PLACE % 2 else 23 - 2 * BITS)
    if INTERPRETED:
        bits = (moved & mask) | ONE
    else:  # one instruction, which the assembler makes two of where both numbers are constants
        bits = tl.inline_asm_elementwise(
            "lop3.b32 $0, $1, $2, $3, 0xEA;", "=r,r,r,r", [moved, mask, ONE], dtype=tl.int32, is_pure=True, pack=1
        )
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def _span(PLACE: tl.constexpr, BITS: tl.constexpr):
    """What a number is divided by where it stands: of two neighbours the second stands in front."""
    return 2.0 ** (BITS if PLACE % 2 else 2 * BITS)


@triton.jit
def _columns(word, PLACE: tl.constexpr, BITS: tl.constexpr, BLOCK: tl.constexpr):
    """Which inputs the numbers at one place of the words meet; neighbours meet neighbours."""
    words: tl.constexpr = BLOCK * BITS // 32
    column = word // words * BLOCK + PLACE * words + word % words
    return tl.max_contiguous(tl.multiple_of(column, words), words)


@triton.jit
def _tile(
    weight, row, start, ROWS: tl.constexpr, DEPTH: tl.constexpr, BITS: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr
):
    """Weights of the rows [BN] from `start` on: numbers [BN, BK], or where they are packed the words of as many."""
    each: tl.constexpr = 32 // BITS if BITS else 1
    wide: tl.constexpr = DEPTH // each
    column = start // each + tl.arange(0, BK // each)
    place = weight + row[:, None].to(tl.int64) * wide + column[None, :]
    if ROWS % BN == 0 and DEPTH % BK == 0:
        found = tl.load(place)
    else:
        found = tl.load(place, mask=(row < ROWS)[:, None] & (column < wide)[None, :], other=0)
    return found


@triton.jit
def added(w, x, gain, column, square, DEPTH: tl.constexpr, NORM: tl.constexpr, BK: tl.constexpr):
    """What a tile adds to the sums of its rows, still apart by columns, and to the squares of the inputs."""
    whole: tl.constexpr = DEPTH % BK == 0
    v = (tl.load(x + column) if whole else tl.load(x + column, mask=column < DEPTH, other=0.0)).to(tl.float32)
    if NORM:
        square += v * v
        g = tl.load(gain + column) if whole else tl.load(gain + column, mask=column < DEPTH, other=0.0)
        v *= g.to(tl.float32)
    return w.to(tl.float32) * v[None, :], square


@triton.jit
def _group_scales(
    scales, row, word, ROWS: tl.constexpr, DEPTH: tl.constexpr, BLOCK: tl.constexpr, BN: tl.constexpr,
    WHOLE: tl.constexpr,
):  # fmt: skip
    """The scale of each word's group; all words of a group have the same."""
    words: tl.constexpr = BLOCK // 8
    group = tl.max_constancy(word // words, words)
    place = scales + row[:, None].to(tl.int64) * (DEPTH // BLOCK) + group[None, :]
    if WHOLE and ROWS % BN == 0:
        found = tl.load(place)
    else:
        found = tl.load(place, mask=(row < ROWS)[:, None] & (word < DEPTH // 8)[None, :], other=0.0)
    return found.to(tl.float32)


@triton.jit
def _vector(
    x, gain, weight, scales, bias, residual, out, eps, ROWS: tl.constexpr, DEPTH: tl.constexpr,
    NORM: tl.constexpr, GATED: tl.constexpr, ADD: tl.constexpr, BIAS: tl.constexpr, BN: tl.constexpr,
    BK: tl.constexpr, STAGES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One row of inputs: each program has BN rows of the matrix, and with GATED as many of its second half."""
    row = tl.program_id(0) * BN + tl.arange(0, BN)
    column = tl.arange(0, BK)
    ALL: tl.constexpr = 2 * ROWS if GATED else ROWS
    square = tl.zeros((BK,), tl.float32)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    if DEPTH <= BK:
        # the weights do not depend on the kernel before this one, and may come while it still runs
        w = _tile(weight, row, 0, ALL, DEPTH, 0, BN, BK)
        other = _tile(weight, row + ROWS, 0, ALL, DEPTH, 0, BN, BK) if GATED else w
        if PDL:
            tl.extra.cuda.gdc_wait()
        total, square = added(w, x, gain, column, square, DEPTH, NORM, BK)
        second = total
        if GATED:
            second, _ = added(other, x, gain, column, square, DEPTH, NORM, BK)
    else:
        if PDL:
            tl.extra.cuda.gdc_wait()
        total = tl.zeros((BN, BK), tl.float32)
        second = tl.zeros((BN, BK), tl.float32)
        for start in tl.range(0, DEPTH, BK, num_stages=STAGES):
            w = _tile(weight, row, start, ALL, DEPTH, 0, BN, BK)
            part, squares = added(w, x, gain, start + column, square, DEPTH, NORM, BK)
            total += part
            if GATED:
                w = _tile(weight, row + ROWS, start, ALL, DEPTH, 0, BN, BK)
                ups, _ = added(w, x, gain, start + column, square, DEPTH, NORM, BK)
                second += ups
            square = squares
    found, up = tl.sum(total, 1), tl.sum(second, 1)
    scale = 1.0 / tl.sqrt(tl.sum(square, 0) / DEPTH + eps) if NORM else 1.0
    finished(found * scale, up * scale, row, row, scales, bias, residual, out, row < ROWS, ROWS, GATED, ADD, BIAS, 0)


@triton.jit
def _met(
    w, x, gain, scales, row, token, start, total, square, TOKENS: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr,
    NORM: tl.constexpr, BITS: tl.constexpr, BLOCK: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The sums [rows, tokens] after one more tile, and the squares [tokens] with them."""
    kind = tl.float32 if WIDE else x.dtype.element_ty
    each: tl.constexpr = 32 // BITS if BITS else 1
    word = start // each + tl.arange(0, BK // each)
    scale = _group_scales(scales, row, word, ROWS, DEPTH, BLOCK, BN, DEPTH % BK == 0) if BITS == 4 else 1.0
    for place in tl.static_range(each):
        column = word if BITS == 0 else _columns(word, place, BITS, BLOCK)
        known = (column < DEPTH)[:, None] & (token < TOKENS)[None, :]
        v = tl.load(x + token[None, :].to(tl.int64) * DEPTH + column[:, None], mask=known, other=0.0).to(kind)
        if NORM:
            square += tl.sum(v.to(tl.float32) * v.to(tl.float32), 0)
            g = tl.load(gain + column, mask=column < DEPTH, other=0.0).to(tl.float32)
            v = (v.to(tl.float32) * g[:, None]).to(kind)
        if BITS:
            span = _span(place, BITS)
            part = ((_fractions(w, place, BITS) - (1.0 + 2.0 ** (BITS - 1) / span)) * (scale * span)).to(kind)
        else:
            part = w.to(kind)
        total = tl.dot(part, v, total, input_precision="ieee")
    return total, square


@triton.jit
def _matrix(
    x, gain, weight, scales, bias, residual, out, eps, ROWS: tl.constexpr, DEPTH: tl.constexpr,
    NORM: tl.constexpr, GATED: tl.constexpr, ADD: tl.constexpr, BIAS: tl.constexpr, BITS: tl.constexpr,
    BLOCK: tl.constexpr, TOKENS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    STAGES: tl.constexpr, WIDE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Several rows of inputs: the matrix is the tall operand, so that few tokens do not waste a tensor core's rows."""
    row = tl.program_id(0) * BN + tl.arange(0, BN)
    token = tl.arange(0, BM)
    ALL: tl.constexpr = 2 * ROWS if GATED else ROWS
    total = tl.zeros((BN, BM), tl.float32)
    second = tl.zeros((BN, BM), tl.float32)
    square = tl.zeros((BM,), tl.float32)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    for start in tl.range(0, DEPTH, BK, num_stages=STAGES):
        w = _tile(weight, row, start, ALL, DEPTH, BITS, BN, BK)
        total, squares = _met(
            w, x, gain, scales, row, token, start, total, square,
            TOKENS, ALL, DEPTH, NORM, BITS, BLOCK, BN, BK, WIDE,
        )  # fmt: skip
        if GATED:
            w = _tile(weight, row + ROWS, start, ALL, DEPTH, BITS, BN, BK)
            second, _ = _met(
                w, x, gain, scales, row + ROWS, token, start, second, square,
                TOKENS, ALL, DEPTH, NORM, BITS, BLOCK, BN, BK, WIDE,
            )  # fmt: skip
        square = squares
    if NORM:
        scale = 1.0 / tl.sqrt(square / DEPTH + eps)
        total *= scale[None, :]
        second *= scale[None, :]
    inside = (row < ROWS)[:, None] & (token < TOKENS)[None, :]
    place = token[None, :].to(tl.int64) * ROWS + row[:, None]
    finished(total, second, row[:, None], place, scales, bias, residual, out, inside, ROWS, GATED, ADD, BIAS, BITS)


@dataclass(frozen=True)
class Norm:
    """An RMSNorm of the inputs that is part of a product: its weights [depth], and what is added to the mean square."""

    gain: torch.Tensor
    eps: float


def product(
    x: torch.Tensor,
    matrix: Matrix,
    out: torch.Tensor,
    norm: Norm | None = None,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    gated: bool = False,
    soon: bool = False,
) -> torch.Tensor:
    """out = x W^T, with the inputs normalised before and a bias or the residual added after, in one kernel.

    x [tokens, depth], dense; out [tokens, rows], of any float format. `gated`: the first half of the matrix's rows is
    the gate and the second what it gates, out [tokens, rows / 2] = silu(gate) x up. `residual` [tokens, rows] may be
    `out` itself. `soon`: begun before the kernel ahead has ended. At most SKINNY tokens. Sums are in float32.
    Raises ValueError for shapes that do not fit.
    """
    tokens, depth = x.shape
    rows = matrix.rows // 2 if gated else matrix.rows
    if depth != matrix.depth or out.shape != (tokens, rows) or tokens > SKINNY:
        raise ValueError(
            f"{list(x.shape)} inputs, {list(out.shape)} outputs and {matrix.rows} x {matrix.depth} do not fit together."
        )
    if not (x.is_contiguous() and out.is_contiguous()):
        raise ValueError("Inputs and outputs must be dense.")
    given = (
        x, norm.gain if norm else x, matrix.weight, matrix.scales if matrix.scales is not None else x,
        bias if bias is not None else x, residual if residual is not None else x, out, norm.eps if norm else 0.0,
    )  # fmt: skip
    flags = {"ROWS": rows, "DEPTH": depth, "NORM": norm is not None, "GATED": gated, "ADD": residual is not None}
    flags |= {"BIAS": bias is not None, **early(soon)}
    packed = {"BITS": matrix.bits, "BLOCK": matrix.block}
    if tokens > 1:
        shape = matrix_tile(matrix.bits, rows, depth, gated, tokens, x.element_size())
        _matrix[(triton.cdiv(rows, shape["BN"]),)](*given, **flags, **packed, TOKENS=tokens, **shape)
    elif not matrix.bits:
        shape = vector_tile(rows, depth, gated)
        _vector[(triton.cdiv(rows, shape["BN"]),)](*given, **flags, **shape)
    elif depth > DEEP:
        shape = deep_tile(matrix.bits)
        deep[(triton.cdiv(rows, shape["BN"]),)](*given, **flags, **packed, **shape)
    else:
        shape = flat_tile(matrix.bits, rows, depth, gated, _multiprocessors(x.device))
        flat[(shape["PROGRAMS"],)](*given, **flags, **packed, **shape)
    return out


@cache
def _multiprocessors(device: torch.device) -> int:
    """Of a GPU; the interpreter has two, so that its programs too take turns."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2
