"""Products of few rows with a large matrix, as in a decode step: what comes before and after is part of the kernel."""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from engine.kernels.matrix import Matrix

MAGIC = tl.constexpr(0x4B000000)
"""The bits of 2^23 as a float32: a small whole number in its low bits is added to it, without a conversion."""
SKINNY = 64
"""From more rows on a library's products of whole tiles are faster."""


@triton.jit
def _nibbles(words, PLACE: tl.constexpr):
    """The 4-bit numbers at one place of 32-bit words, less 8, times 16^(PLACE % 4), as float32."""
    shifted = words >> 16 if PLACE >= 4 else words
    bits = (shifted & (0xF << (4 * (PLACE % 4)))) | MAGIC
    return bits.to(tl.float32, bitcast=True) - (8388608.0 + 8.0 * 16.0 ** (PLACE % 4))


@triton.jit
def _fetch(weight, first, width, rows, BN: tl.constexpr, LINES: tl.constexpr):
    """Ask for BN rows of `width` bytes to come into L2, 128 bytes at a time; nothing is waited for."""
    row = first + tl.arange(0, BN)
    line = tl.arange(0, LINES) * 128
    begin = weight.to(tl.int64, bitcast=True) + row[:, None].to(tl.int64) * width
    inside = (row < rows)[:, None] & (line < width)[None, :]
    place = tl.where(inside, begin + line[None, :], weight.to(tl.int64, bitcast=True))
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [place], dtype=tl.int32, is_pure=False, pack=1
    )


@triton.jit
def _weights(weight, row, column, depth, inside):
    """A tile of plain or 8-bit weights; 0 outside."""
    return tl.load(weight + row[:, None].to(tl.int64) * depth + column[None, :], mask=inside, other=0)


@triton.jit
def _partial(x, gain, weight, scales, row, start, depth, rows, square, NORM: tl.constexpr, FOUR: tl.constexpr,
             BK: tl.constexpr):  # fmt: skip
    """What a stretch of the depth adds to each row's sum, [rows, BK] (4 bits: [rows, BK / 8]), and to the squares."""
    if FOUR:
        words: tl.constexpr = FOUR // 8
        word = start // 8 + tl.arange(0, BK // 8)
        inside = (row < rows)[:, None] & (word < depth // 8)[None, :]
        packed = tl.load(weight + row[:, None].to(tl.int64) * (depth // 8) + word[None, :], mask=inside, other=0)
        group = row[:, None].to(tl.int64) * (depth // FOUR) + (word // words)[None, :]
        total = tl.zeros(packed.shape, tl.float32)
        for place in tl.static_range(8):
            column = word // words * FOUR + place * words + word % words
            v = tl.load(x + column, mask=word < depth // 8, other=0.0).to(tl.float32)
            if NORM:
                square += v * v
                v *= tl.load(gain + column, mask=word < depth // 8, other=0.0).to(tl.float32)
            total += _nibbles(packed, place) * (v * 16.0 ** -(place % 4))[None, :]
        total *= tl.load(scales + group, mask=inside, other=0.0).to(tl.float32)
    else:
        column = start + tl.arange(0, BK)
        inside = (row < rows)[:, None] & (column < depth)[None, :]
        w = _weights(weight, row, column, depth, inside).to(tl.float32)
        v = tl.load(x + column, mask=column < depth, other=0.0).to(tl.float32)
        if NORM:
            square += v * v
            v *= tl.load(gain + column, mask=column < depth, other=0.0).to(tl.float32)
        total = w * v[None, :]
    return total, square


@triton.jit
def _vector(
    x, gain, weight, scales, bias, residual, out, rows, depth, eps,
    NORM: tl.constexpr, GATED: tl.constexpr, ADD: tl.constexpr, BIAS: tl.constexpr, SCALED: tl.constexpr,
    FOUR: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr, PDL: tl.constexpr,
    LINES: tl.constexpr,
):  # fmt: skip
    """One row of inputs: each program has BN rows of the matrix, and with GATED as many of its second half."""
    row = tl.program_id(0) * BN + tl.arange(0, BN)
    wide: tl.constexpr = BK // 8 if FOUR else BK
    total = tl.zeros((BN, wide), tl.float32)
    second = tl.zeros((BN, wide), tl.float32)
    square = tl.zeros((wide,), tl.float32)
    if PDL:
        # the weights do not depend on the kernel before, and so may come while it still runs
        tl.extra.cuda.gdc_launch_dependents()
        if LINES:
            size = depth // 2 if FOUR else depth * weight.dtype.element_ty.primitive_bitwidth // 8
            _fetch(weight, tl.program_id(0) * BN, size, rows, BN, LINES)
            if GATED:
                _fetch(weight, tl.program_id(0) * BN + rows, size, 2 * rows, BN, LINES)
        tl.extra.cuda.gdc_wait()
    for start in tl.range(0, depth, BK, num_stages=STAGES):
        added, square = _partial(x, gain, weight, scales, row, start, depth, rows, square, NORM, FOUR, BK)
        total += added
        if GATED:
            ups = _partial(x, gain, weight, scales, row + rows, start, depth, 2 * rows, square, NORM, FOUR, BK)
            second += ups[0]
    found, up = tl.sum(total, 1), tl.sum(second, 1)
    inside = row < rows
    if NORM:
        scale = 1.0 / tl.sqrt(tl.sum(square, 0) / depth + eps)
        found *= scale
        up *= scale
    if SCALED:
        found *= tl.load(scales + row, mask=inside, other=0.0)
        if GATED:
            up *= tl.load(scales + rows + row, mask=inside, other=0.0)
    if BIAS:
        found += tl.load(bias + row, mask=inside, other=0.0).to(tl.float32)
    if GATED:
        found = found * tl.sigmoid(found) * up
    if ADD:
        found += tl.load(residual + row, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row, found.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _tile(x, gain, weight, scales, row, token, start, depth, rows, tokens, total, square,
          NORM: tl.constexpr, FOUR: tl.constexpr, BK: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """One stretch of the depth of `_matrix`: the sums [rows, tokens] and the squares [tokens] with it."""
    kind = tl.float32 if WIDE else x.dtype.element_ty
    place = token[None, :].to(tl.int64) * depth
    if FOUR:
        words: tl.constexpr = FOUR // 8
        word = start // 8 + tl.arange(0, BK // 8)
        inside = (row < rows)[:, None] & (word < depth // 8)[None, :]
        known = (word < depth // 8)[:, None] & (token < tokens)[None, :]
        packed = tl.load(weight + row[:, None].to(tl.int64) * (depth // 8) + word[None, :], mask=inside, other=0)
        group = row[:, None].to(tl.int64) * (depth // FOUR) + (word // words)[None, :]
        scale = tl.load(scales + group, mask=inside, other=0.0).to(tl.float32)
        for nibble in tl.static_range(8):
            column = word // words * FOUR + nibble * words + word % words
            v = tl.load(x + place + column[:, None], mask=known, other=0.0).to(kind)
            if NORM:
                square += tl.sum(v.to(tl.float32) * v.to(tl.float32), 0)
                g = tl.load(gain + column, mask=word < depth // 8, other=0.0)
                v = (v.to(tl.float32) * g.to(tl.float32)[:, None]).to(kind)
            w = (_nibbles(packed, nibble) * (scale * 16.0 ** -(nibble % 4))).to(kind)
            total = tl.dot(w, v, total, input_precision="ieee")
    else:
        column = start + tl.arange(0, BK)
        inside = (row < rows)[:, None] & (column < depth)[None, :]
        known = (column < depth)[:, None] & (token < tokens)[None, :]
        w = _weights(weight, row, column, depth, inside).to(kind)
        v = tl.load(x + place + column[:, None], mask=known, other=0.0).to(kind)
        if NORM:
            square += tl.sum(v.to(tl.float32) * v.to(tl.float32), 0)
            g = tl.load(gain + column, mask=column < depth, other=0.0)
            v = (v.to(tl.float32) * g.to(tl.float32)[:, None]).to(kind)
        total = tl.dot(w, v, total, input_precision="ieee")
    return total, square


@triton.jit
def _matrix(
    x, gain, weight, scales, bias, residual, out, rows, depth, tokens, eps,
    NORM: tl.constexpr, GATED: tl.constexpr, ADD: tl.constexpr, BIAS: tl.constexpr, SCALED: tl.constexpr,
    FOUR: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """Several rows of inputs: the matrix is the tall operand, so that few tokens do not waste a tensor core's rows."""
    row = tl.program_id(0) * BN + tl.arange(0, BN)
    token = tl.program_id(1) * BM + tl.arange(0, BM)
    total = tl.zeros((BN, BM), tl.float32)
    second = tl.zeros((BN, BM), tl.float32)
    square = tl.zeros((BM,), tl.float32)
    spare = tl.zeros((BM,), tl.float32)
    for start in tl.range(0, depth, BK, num_stages=STAGES):
        total, square = _tile(x, gain, weight, scales, row, token, start, depth, rows, tokens, total, square,
                              NORM, FOUR, BK, WIDE)  # fmt: skip
        if GATED:
            second, spare = _tile(x, gain, weight, scales, row + rows, token, start, depth, 2 * rows, tokens,
                                  second, spare, NORM, FOUR, BK, WIDE)  # fmt: skip
    inside = (row < rows)[:, None] & (token < tokens)[None, :]
    if NORM:
        scale = 1.0 / tl.sqrt(square / depth + eps)
        total *= scale[None, :]
        second *= scale[None, :]
    if SCALED:
        total *= tl.load(scales + row, mask=row < rows, other=0.0)[:, None]
        if GATED:
            second *= tl.load(scales + rows + row, mask=row < rows, other=0.0)[:, None]
    if BIAS:
        total += tl.load(bias + row, mask=row < rows, other=0.0).to(tl.float32)[:, None]
    if GATED:
        total = total * tl.sigmoid(total) * second
    place = token[None, :].to(tl.int64) * rows + row[:, None]
    if ADD:
        total += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + place, total.to(out.dtype.element_ty), mask=inside)


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
) -> torch.Tensor:
    """out = x W^T, with the inputs normalised before and a bias or the residual added after, in one kernel.

    x [tokens, depth], dense; out [tokens, rows], of any float format. `gated`: the first half of the matrix's rows is
    the gate and the second what it gates, out [tokens, rows / 2] = silu(gate) x up. `residual` [tokens, rows] may be
    `out` itself. At most SKINNY tokens. Sums are in float32. Raises ValueError for shapes that do not fit.
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
        bias if bias is not None else x, residual if residual is not None else x, out, rows, depth,
    )  # fmt: skip
    eps = norm.eps if norm else 0.0
    flags = {"NORM": norm is not None, "GATED": gated, "ADD": residual is not None, "BIAS": bias is not None}
    flags |= {"SCALED": matrix.kind == "int8", "FOUR": matrix.group}
    if tokens == 1:
        shape = vector_tile(matrix, gated)
        if shape["PDL"]:
            shape |= {"launch_pdl": True, "LINES": triton.next_power_of_2(triton.cdiv(matrix.width, 128))}
        _vector[(triton.cdiv(rows, shape["BN"]),)](*given, eps, **flags, **shape)
    else:
        shape = matrix_tile(matrix, tokens, gated)
        _matrix[(triton.cdiv(rows, shape["BN"]), triton.cdiv(tokens, shape["BM"]))](
            *given, tokens, eps, **flags, **shape
        )
    return out


def vector_tile(matrix: Matrix, gated: bool) -> dict[str, int | bool]:
    """How one row of inputs is cut: few rows of the matrix a program, so that all multiprocessors have some."""
    deep = min(1024, triton.next_power_of_2(matrix.depth))
    return {"BN": 4, "BK": deep, "STAGES": 1, "PDL": False, "LINES": 0, "num_warps": 4}


def matrix_tile(matrix: Matrix, tokens: int, gated: bool) -> dict[str, int]:
    """How several rows are cut: 16 tokens at least, which is a tensor core's narrowest side."""
    most = min(SKINNY, max(16, triton.next_power_of_2(tokens)))
    deep = 128 if matrix.group else 64
    # the interpreter multiplies what numpy knows, and that has no bfloat16
    return {"BM": most, "BN": 64, "BK": deep, "STAGES": 3, "WIDE": triton.knobs.runtime.interpret, "num_warps": 4}
