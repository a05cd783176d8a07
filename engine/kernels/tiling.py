"""How products of few rows are cut into programs: measured on an H200 with shapes of 135M, 0.6B and 8B models."""

import triton

DEEP, WIDE = 4096, 16384
"""From this depth on a loop over the depth pays; from so many rows on it is the last product of a model."""


def vector_tile(bits: int, rows: int, depth: int, gated: bool) -> dict[str, int]:
    """One row of inputs: BN rows of the matrix a program, read BK numbers at a time; few rows, so all have some."""
    if bits:
        rows_each, deep, warps, stages = _packed(bits, depth, gated)
    elif depth >= DEEP:
        rows_each, deep, warps, stages = (16, 256, 4, 4) if rows > depth and not gated else (8, 512, 4, 4)
    elif depth > 1024:
        rows_each, deep, warps, stages = 4, 2048, 8, 1
    else:
        rows_each, deep, warps, stages = 8 if rows >= WIDE else 2, 1024, 4, 1
    return {"BN": rows_each, "BK": min(deep, triton.next_power_of_2(depth)), "STAGES": stages, "num_warps": warps}


PACKED = {
    (8, False): (8, 1024, 4, 3), (8, True): (4, 2048, 4, 1), (4, False): (8, 4096, 4, 1), (4, True): (4, 4096, 4, 1),
}  # fmt: skip
"""Of deep matrices with 8 and 4 bits, without and with a gate."""
LONG = {8: (8, 1024, 4, 3), 4: (8, 2048, 4, 1)}
"""Of those that are too deep to be read at once."""


def _packed(bits: int, depth: int, gated: bool) -> tuple[int, int, int, int]:
    if depth > DEEP:
        return LONG[bits]
    return PACKED[bits, gated] if depth == DEEP else (4, DEEP, 4, 1)


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
