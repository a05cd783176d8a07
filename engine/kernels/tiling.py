"""How products of few rows are cut into programs: measured on an H200 with shapes of 135M, 0.6B and 8B models."""

import triton

DEEP, WIDE = 4096, 16384
"""From this depth on a loop over the depth pays; from so many rows on it is the last product of a model."""


def vector_tile(rows: int, depth: int, gated: bool) -> dict[str, int]:
    """One row and plain numbers: BN rows of the matrix a program, read BK at a time; few rows, so all have some."""
    if depth >= DEEP:
        rows_each, deep, warps, stages = (16, 256, 4, 4) if rows > depth and not gated else (8, 512, 4, 4)
    elif depth > 1024:
        rows_each, deep, warps, stages = 4, 2048, 8, 1
    else:
        rows_each, deep, warps, stages = 8 if rows >= WIDE else 2, 1024, 4, 1
    return {"BN": rows_each, "BK": min(deep, triton.next_power_of_2(depth)), "STAGES": stages, "num_warps": warps}


HELD, TURNS_HELD = 16, 8
"""How many pieces of 16 bytes a thread reads ahead where a program has one tile, and where it takes turns."""
RESIDENT = 4
"""Programs that a multiprocessor runs at once."""


def flat_tile(bits: int, rows: int, depth: int, gated: bool, multiprocessors: int) -> dict[str, int]:
    """One row and whole numbers, all inputs at once; programs take turns where there is more than all can hold."""
    wide = max(triton.next_power_of_2(depth), 128 // bits)
    pieces = wide * bits // 128
    warps = min(4, max(1, pieces // 32))
    each = max(1, pieces // (32 * warps)) * (2 if gated else 1)
    programs = RESIDENT * multiprocessors
    most = HELD // each
    if triton.cdiv(rows, most) > programs:
        most = TURNS_HELD // each
    while most > 1 and triton.cdiv(rows, most) < 2 * multiprocessors:
        most //= 2
    blocks = triton.cdiv(rows, most)
    turns = triton.cdiv(blocks, programs)
    return {"BN": most, "BK": wide, "PROGRAMS": triton.cdiv(blocks, turns), "num_warps": warps}


def deep_tile(bits: int) -> dict[str, int]:
    """One row and whole numbers of a matrix that is too deep to be met at once."""
    return {"BN": 8, "BK": 2048, "num_warps": bits // 2}


def matrix_tile(bits: int, rows: int, depth: int, gated: bool, tokens: int, size: int) -> dict[str, int]:
    """Several rows of inputs of `size` bytes a number: 16 tokens at least, which is a tensor core's narrowest side."""
    rows_each, deep, warps, stages = (64, 256, 4, 4)
    if gated or rows >= WIDE:
        rows_each, deep, warps, stages = (128, 128, 8, 3)
    if bits:
        rows_each, deep, warps, stages = (64, 256, 4, 3)
    if size > 2 or tokens > 32:  # two stages of what a multiprocessor can hold
        deep, stages = max(deep // 2, 128 if bits else 64), 2
    most = max(16, triton.next_power_of_2(tokens))
    deep = max(min(deep, triton.next_power_of_2(depth)), 128 if bits else 16)
    # the interpreter multiplies what numpy knows, and that has no bfloat16
    wide = triton.knobs.runtime.interpret
    return {"BM": most, "BN": rows_each, "BK": deep, "STAGES": stages, "WIDE": wide, "num_warps": warps}
