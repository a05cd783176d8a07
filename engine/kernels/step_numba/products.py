"""Products of a few inputs with blocks of packed weights, for loops that numba compiles: step/products.h in short.

A matrix is six words: its kind, rows and depth, and the addresses of its data, scales and sums.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit

from engine.kernels.step_numba.lanes import (
    bits,
    converted,
    floats,
    fused,
    joined,
    larger,
    largest,
    repeated,
    splat,
    spread_floats,
    spread_wholes,
    store,
    store_bytes,
    summed,
    together,
    total,
    wholes,
)

FLOAT32, BFLOAT16, INT8, INT4 = range(4)
BLOCK, TOGETHER = 32, 4
"""Rows that lie together, and tokens multiplied with them at once."""
NIBBLES, UPPER = 0x0F0F0F0F, -65536


class Input(NamedTuple):
    """Addresses of inputs [tokens, depth]: floats; integers in two parts; their scales; and the sums of groups."""

    values: int
    high: int
    low: int
    scales: int
    groups: int


def _floats(several: int) -> tuple[Callable, Callable]:
    count = several * BLOCK

    @together
    def float32(m, x, token, block):
        depth, y = m[2], splat(0.0, count)
        w, at = m[3] + block * 128 * depth, x.values + 4 * token * depth
        for k in range(depth):
            weight = repeated(floats(w + 128 * k, BLOCK), several)
            y = fused(weight, spread_floats(at + 4 * k, 4 * depth, several, BLOCK), y)
        return y

    @together
    def bfloat16(m, x, token, block):
        depth, y = m[2], splat(0.0, count)
        w, at = m[3] + block * 64 * depth, x.values + 4 * token * depth
        for k in range(0, depth, 2):
            two = wholes(w + 64 * k, BLOCK)
            even, odd = repeated(bits(two << 16), several), repeated(bits(two & UPPER), several)
            y = fused(even, spread_floats(at + 4 * k, 4 * depth, several, BLOCK), y)
            y = fused(odd, spread_floats(at + 4 * k + 4, 4 * depth, several, BLOCK), y)
        return y

    return float32, bfloat16


def _int8(several: int, fine: bool) -> Callable:
    count = several * BLOCK

    @together
    def int8(m, x, token, block):
        depth, high, low = m[2], splat(0, count), splat(0, count)
        w, at = m[3] + block * BLOCK * depth, token * depth
        for k in range(0, depth, 4):
            weight = repeated(wholes(w + BLOCK * k, BLOCK), several)
            high = summed(high, spread_wholes(x.high + at + k, depth, several, BLOCK), weight)
            if fine:
                low = summed(low, spread_wholes(x.low + at + k, depth, several, BLOCK), weight)
        y = converted(high - repeated(wholes(m[5] + 128 * block, BLOCK) * 128, several))
        if fine:
            y = fused(y, splat(256.0, count), converted(low))
        scale = spread_floats(x.scales + 4 * token, 4, several, BLOCK)
        return y * repeated(floats(m[4] + 128 * block, BLOCK), several) * scale

    return int8


def _int4(several: int, fine: bool) -> Callable:
    count = several * BLOCK

    @together
    def both(sums, weight, at, depth):
        """Columns k to k + 3 lie below columns k + 16 to k + 19."""
        first, second = repeated(weight & NIBBLES, several), repeated((weight >> 4) & NIBBLES, several)
        sums = summed(sums, first, spread_wholes(at, depth, several, BLOCK))
        return summed(sums, second, spread_wholes(at + 16, depth, several, BLOCK))

    @together
    def int4(m, x, token, block):
        depth, groups, y = m[2], m[2] // 32, splat(0.0, count)
        w, scale, at = m[3] + block * 16 * depth, m[4] + block * groups * 64, token * depth
        for group in range(groups):
            high, low = splat(0, count), splat(0, count)
            for part in range(4):
                weight, k = wholes(w + group * 512 + part * 128, BLOCK), at + group * 32 + part * 4
                high = both(high, weight, x.high + k, depth)
                if fine:
                    low = both(low, weight, x.low + k, depth)
            if fine:
                high = (high << 8) + low
            sums = spread_wholes(x.groups + 4 * (token * groups + group), 4 * groups, several, BLOCK)
            two = wholes(scale + 64 * group, 16)  # of rows r and r + 16
            scales = repeated(joined(bits(two << 16), bits(two & UPPER)), several)
            y = fused(scales, converted(high - sums * 8), y)
        return y * spread_floats(x.scales + 4 * token, 4, several, BLOCK)

    return int4


def _product(several: int) -> Callable:
    float32, bfloat16 = _floats(several)
    int8, coarse_int8, int4, coarse_int4 = (one(several, fine) for one in (_int8, _int4) for fine in (True, False))

    @njit(nogil=True, error_model="numpy")
    def product(m, x, token, block, fine, to):
        """The sums of 32 rows for `several` tokens: [several, 32] floats."""
        if m[0] == FLOAT32:
            store(to, float32(m, x, token, block))
        elif m[0] == BFLOAT16:
            store(to, bfloat16(m, x, token, block))
        elif m[0] == INT8:
            store(to, int8(m, x, token, block) if fine else coarse_int8(m, x, token, block))
        else:
            store(to, int4(m, x, token, block) if fine else coarse_int4(m, x, token, block))

    return product


one_product, several_products = _product(1), _product(TOGETHER)


@together
def _split(q, at, x, signed, fine):
    top = q
    if fine:
        top = (q + (128 if signed else 0)) >> 8
    store_bytes(x.high + at, top + (0 if signed else 128))
    store_bytes(x.low + at, q - (top << 8))


@together
def _nearest(v):
    """The nearest whole numbers, of numbers below 2^22."""
    return converted((v + 12582912.0) - 12582912.0)


@together
def rounded(m, x, token, fine):
    """Make integers of 16 bits, or of 8 if not `fine`, of a token's floats, for weights that are integers."""
    depth, peak = m[2], splat(0.0, 16)
    row = x.values + 4 * token * depth
    for i in range(0, depth, 16):
        value = floats(row + 4 * i, 16)
        peak = larger(peak, larger(value, splat(0.0, 16) - value))
    most, top, signed = largest(peak), np.float32(32639 if fine else 127), m[0] == INT4
    store(x.scales + 4 * token, splat(most / top, 1))
    factor = top / most if most > 0 else np.float32(0)
    for i in range(0, depth, 32):
        first, second = _nearest(floats(row + 4 * i, 16) * factor), _nearest(floats(row + 4 * i + 64, 16) * factor)
        _split(first, token * depth + i, x, signed, fine)
        _split(second, token * depth + i + 16, x, signed, fine)
        store(x.groups + (token * depth + i) // 8, splat(total(first + second), 1))
