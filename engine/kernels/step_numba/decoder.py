"""The passes of step/decoder.cpp for numba: those of one step, run by every thread.

A matrix and a layer are words, as the C++ step has them; texts too.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit

from engine.kernels.step_numba.lanes import (
    bits,
    converted,
    floats,
    folded,
    fused,
    larger,
    largest,
    meet,
    splat,
    spread_floats,
    store,
    take,
    together,
    total,
    word,
)
from engine.kernels.step_numba.products import (
    BLOCK,
    INT8,
    TOGETHER,
    one_product,
    rounded,
    several_products,
)

FEW, SLICE = 4, 64
"""Tokens that each thread prepares for itself, and those that a thread multiplies with one block of weights."""
QKV, OUT, GATE_UP, DOWN = (slice(first, first + 6) for first in (0, 6, 12, 18))
ATTENTION_NORM, FEED_NORM, QUERY_NORM, KEY_NORM, BIAS = range(24, 29)
"""Where a layer's matrices and vectors stand among its words."""
apart = njit(nogil=True, error_model="numpy")


class Shape(NamedTuple):
    """Sizes, and addresses of what all threads share."""

    layers: int
    heads: int
    kv_heads: int
    dim: int
    length: int
    threads: int
    fine: bool
    paired: bool
    epsilon: float
    scale: float
    cosines: int
    sines: int
    cache: int
    final_norm: int
    team: int
    sums: int
    scores: int
    stream: int
    mixed: int
    attended: int
    both: int


class Text(NamedTuple):
    """As in the C++ step: addresses, and how many there are; `each` is that of the numbers of all tokens."""

    each: int
    rows: int
    places: int
    tokens: int
    wanted: int
    keep: int


@together
def exponential(x):
    """e^x of 16 numbers: 2^n times a polynomial in the rest (Cephes; error below 2e-7 of the value)."""
    x = larger(splat(-87.0, 16), splat(0.0, 16) - larger(splat(-88.0, 16), splat(0.0, 16) - x))
    power = (x * 1.44269504 + 12582912.0) - 12582912.0
    rest = fused(power, splat(2.12194440e-4, 16), fused(power, splat(-0.693359375, 16), x))
    sums = fused(splat(1.9875691500e-4, 16), rest, splat(1.3981999507e-3, 16))
    sums = fused(sums, rest, splat(8.3334519073e-3, 16))
    sums = fused(sums, rest, splat(4.1665795894e-2, 16))
    sums = fused(sums, rest, splat(1.6666665459e-1, 16))
    sums = fused(sums, rest, splat(5.0000001201e-1, 16))
    return (fused(sums * rest, rest, rest) + 1.0) * bits((converted(power) + 127) << 23)


@together
def normed(source, weight, size, epsilon, to):
    """RMSNorm, arXiv:1910.07467."""
    square = splat(0.0, 16)
    for i in range(0, 4 * size, 64):
        square = square + floats(source + i, 16) * floats(source + i, 16)
    inverse = 1 / math.sqrt(total(square) / size + epsilon)
    for i in range(0, 4 * size, 64):
        store(to + i, floats(source + i, 16) * inverse * floats(weight + i, 16))


@together
def plain(source, weight, size, epsilon, to):
    for i in range(0, 4 * size, 64):
        store(to + i, floats(source + i, 16))


@together
def swiglu(source, weight, size, epsilon, to):
    """SiLU(gate) x up, arXiv:2002.05202; they stand in turns of 16."""
    for i in range(0, 4 * size, 64):
        gate = floats(source + 2 * i, 16)
        store(to + i, gate / (exponential(splat(0.0, 16) - gate) + 1.0) * floats(source + 2 * i + 64, 16))


def preparing(fill: Callable, widths: int) -> Callable:
    """Inputs of a matrix, of the tokens that `which` names: each thread makes its own of a few, many are shared."""

    @apart
    def prepare(c, m, inputs, number, which, tokens, source, weight):
        alone, depth = tokens <= FEW, m[2]
        x = inputs[number if alone else c.threads]
        token = 0 if alone else take(c.team)
        while token < tokens:
            at = source + 4 * word(which + 8 * token) * widths * depth
            fill(at, weight, depth, c.epsilon, x.values + 4 * token * depth)
            if m[0] >= INT8:
                rounded(m, x, token, c.fine)
            token = token + 1 if alone else take(c.team)
        if not alone:
            meet(c.team, c.threads)
        return x

    return prepare


norm_input, plain_input, swiglu_input = preparing(normed, 1), preparing(plain, 1), preparing(swiglu, 2)


@apart
def times(c, m, x, tokens, number, to, add):
    """to [tokens, rows] = W x, or += where `add`: a block of weights stays in a cache for all tokens of a slice."""
    rows, blocks, slices = m[1], m[1] // BLOCK, (tokens + SLICE - 1) // SLICE
    chunk = max(1, min(16, blocks // (4 * c.threads)))
    sums = c.sums + 4 * TOGETHER * BLOCK * number
    job = take(c.team)
    while job < (blocks + chunk - 1) // chunk * slices:
        first, last = job % slices * SLICE, min(job % slices * SLICE + SLICE, tokens)
        for block in range(job // slices * chunk, min(job // slices * chunk + chunk, blocks)):
            token = first
            while token < last:
                count = TOGETHER if token + TOGETHER <= last else 1
                if count == 1:
                    one_product(m, x, token, block, c.fine, sums)
                else:
                    several_products(m, x, token, block, c.fine, sums)
                for other in range(count):
                    y, at = floats(sums + 128 * other, 32), to + 4 * ((token + other) * rows + block * BLOCK)
                    store(at, y + floats(at, 32) if add else y)
                token += count
        job = take(c.team)
    meet(c.team, c.threads)


@apart
def turn(c, words, layer, text):
    """Add biases, turn queries and keys by their places (RoPE, arXiv:2104.09864), and keep keys and values.

    Paired numbers stay in turns of 16, in the cache as well: a product of queries and keys is a sum in any order.
    """
    dim, heads, half = c.dim, c.heads + 2 * c.kv_heads, c.dim // 2
    job = take(c.team)
    while job < text.tokens * heads:
        token, head = job // heads, job % heads
        place, x = word(text.places + 8 * token), c.mixed + 4 * (token * words[1] + head * dim)
        if words[BIAS]:
            for i in range(0, 4 * dim, 64):
                store(x + i, floats(x + i, 16) + floats(words[BIAS] + 4 * head * dim + i, 16))
        kept = kept_at(c, layer, word(text.rows + 8 * token), (head - c.heads) % c.kv_heads)
        if head >= c.heads + c.kv_heads:
            plain(x, 0, dim, 0.0, kept + 4 * (c.length + place) * dim)
            job = take(c.team)
            continue
        weight = words[QUERY_NORM if head < c.heads else KEY_NORM]
        if weight:
            normed(x, weight, dim, c.epsilon, x)
        for i in range(0, 4 * half, 32):
            first = x + (i // 64 * 128 + i % 64 if c.paired else i)
            second, turned = first + (64 if c.paired else 4 * half), 4 * place * half + i
            a, b, cosine, sine = (
                floats(first, 8),
                floats(second, 8),
                floats(c.cosines + turned, 8),
                floats(c.sines + turned, 8),
            )
            store(first, a * cosine - b * sine)
            store(second, b * cosine + a * sine)
        if head >= c.heads:
            for i in range(dim):
                store(kept + 4 * (place // 16 * 16 * dim + 16 * i + place % 16), floats(x + 4 * i, 1))
        job = take(c.team)
    meet(c.team, c.threads)


@together
def kept_at(c, layer, row, head):
    """Keys in blocks of 16 places, [length / 16][dim][16], and values behind them, [length][dim]."""
    return c.cache + 8 * ((row * c.layers + layer) * c.kv_heads + head) * c.length * c.dim


def weighing(count: int) -> Callable:
    @together
    def weigh(score, values, dim, seen, weights, out):
        sums = splat(0.0, count)
        for place in range(seen):
            sums = fused(floats(values + 4 * place * dim, count), spread_floats(score + 4 * place, 0, 1, count), sums)
        store(out, sums / weights)

    return weigh


weigh_64, weigh_16 = weighing(64), weighing(16)


@together
def attend(c, query, keys, seen, score, out):
    """Scores, softmax and the weighted values of one query and head over the places that it sees."""
    dim, peak, sums = c.dim, splat(-np.inf, 16), splat(0.0, 16)
    for place in range(0, seen, 16):
        found = splat(0.0, 64)
        for i in range(0, dim, 4):
            found = fused(floats(keys + 4 * (place * dim + 16 * i), 64), spread_floats(query + 4 * i, 4, 4, 16), found)
        store(score + 4 * place, folded(found, 16) * c.scale)
        for unseen in range(seen, place + 16):
            store(score + 4 * unseen, splat(-np.inf, 1))
        peak = larger(peak, floats(score + 4 * place, 16))
    for place in range(0, seen, 16):
        weight = exponential(floats(score + 4 * place, 16) - largest(peak))
        store(score + 4 * place, weight)
        sums = sums + weight
    values, wide = keys + 4 * c.length * dim, dim // 64 * 64
    for part in range(0, 4 * wide, 256):
        weigh_64(score, values + part, dim, seen, total(sums), out + part)
    for part in range(4 * wide, 4 * dim, 64):
        weigh_16(score, values + part, dim, seen, total(sums), out + part)


@apart
def attend_all(c, layer, width, number, text):
    job = take(c.team)
    while job < text.tokens * c.heads:
        token, head = job % text.tokens, job // text.tokens
        keys = kept_at(c, layer, word(text.rows + 8 * token), head // (c.heads // c.kv_heads))
        query, out = c.mixed + 4 * (token * width + head * c.dim), c.attended + 4 * (token * c.heads + head) * c.dim
        score, seen = c.scores + 4 * number * (c.length + 16), word(text.places + 8 * token) + 1
        attend(c, query, keys, seen, score, out)
        job = take(c.team)
    meet(c.team, c.threads)


def step(number, c, table, head, inputs, text, logits):
    """What each thread does, all of them with the same arguments; logits [keep, rows of the head]."""
    for layer in range(c.layers):
        words = table[layer]
        x = norm_input(c, words[QKV], inputs, number, text.each, text.tokens, c.stream, words[ATTENTION_NORM])
        times(c, words[QKV], x, text.tokens, number, c.mixed, False)
        turn(c, words, layer, text)
        attend_all(c, layer, words[1], number, text)
        x = plain_input(c, words[OUT], inputs, number, text.each, text.tokens, c.attended, 0)
        times(c, words[OUT], x, text.tokens, number, c.stream, True)
        x = norm_input(c, words[GATE_UP], inputs, number, text.each, text.tokens, c.stream, words[FEED_NORM])
        times(c, words[GATE_UP], x, text.tokens, number, c.both, False)
        x = swiglu_input(c, words[DOWN], inputs, number, text.each, text.tokens, c.both, 0)
        times(c, words[DOWN], x, text.tokens, number, c.stream, True)
    if text.keep:
        x = norm_input(c, head, inputs, number, text.wanted, text.keep, c.stream, c.final_norm)
        times(c, head, x, text.keep, number, logits, False)
