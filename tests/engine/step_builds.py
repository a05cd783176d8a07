"""Compile the kernels of a whole decode step for an NVIDIA GPU, which needs none."""

import triton

from engine.kernels import argmax, decode_attention, skinny, whole
from engine.kernels.matrix import BITS
from engine.kernels.tiling import deep_tile, flat_tile, matrix_tile, vector_tile
from tests.engine.kernel_builds import build

SINGLES = dict.fromkeys(("cosines", "sines", "parts", "peaks", "totals"), "*fp32") | {"scale": "fp32"}
WHOLES = ("places", "pads", "banned", "chosen", "newest", "steps", "ring", "words", "stamps")
COUNTS = dict.fromkeys(WHOLES, "*i64") | dict.fromkeys(("arrived", "ids", "met"), "*i32")
FULL = {"MAILBOX": True, "STAMPED": True, "EMBEDDED": True, "WIDTH": 1024}
BARE = {"MAILBOX": False, "STAMPED": True, "EMBEDDED": False, "WIDTH": 1}


def attention(
    number: str, tokens: int, group: int, size: int, splits: int, norm: bool, early: bool = False, own: int = 0
) -> None:
    """Heads of 96 fill three quarters of a block; one part alone needs no meeting."""
    lines, block = triton.next_power_of_2(tokens * group), 128 if size == 96 else size
    build(
        decode_attention._decode, number, COUNTS | SINGLES | {"qkv": f"*{number}"},
        TOKENS=tokens, GROUP=group, HEADS=2 * group, SIZE=size, SPLITS=splits, LEAST=256, M=max(16, lines), N=32,
        D=block, R=lines, TILE=2, NORM=norm, WIDE=False, OWN=own, PDL=early,
    )  # fmt: skip


def products(kind: str, gated: bool, early: bool) -> None:
    """One row and eight, of a small model's widths; packed, also one so deep that it is met in parts."""
    bits = BITS[kind]
    packed = {"weight": "*i32", "scales": "*fp32" if bits == 8 else "*bf16"} if bits else {}
    kinds = dict.fromkeys(("x", "gain", "weight", "scales", "bias", "residual", "out"), "*bf16") | packed
    given = {"ROWS": 96, "DEPTH": 576, "NORM": True, "GATED": gated, "ADD": not gated, "BIAS": False, "PDL": early}
    whole_numbers = {"BITS": bits, "BLOCK": 64 if bits else 0}
    several = {**whole_numbers, **matrix_tile(bits, 96, 576, gated, 8, 2), "TOKENS": 8}
    cases = [(skinny._matrix, several), (skinny._vector, vector_tile(96, 576, gated))]
    if bits:
        turns = flat_tile(bits, 96, 576, gated, 1)
        cases[1:] = [(whole.flat, whole_numbers | turns), (whole.deep, whole_numbers | deep_tile(bits))]
    for kernel, tile in cases:
        build(kernel, "bf16", kinds, **given, **{name: value for name, value in tile.items() if name != "num_warps"})


def main() -> None:
    for number in ("fp32", "bf16"):
        kinds = COUNTS | SINGLES | dict.fromkeys(("logits", "embedding", "hidden"), f"*{number}")
        attention(number, 1, 4, 128, splits=8, norm=True)
        attention(number, 1, 3, 64, splits=8, norm=False, early=True)
        attention(number, 1, 3, 64, splits=8, norm=False, own=1)
        attention(number, 8, 1, 64, splits=1, norm=False)
        for flags in (FULL, BARE):
            build(argmax._greedy, number, kinds, COLUMNS=2048, BLOCKS=32, **flags)
            build(argmax._advanced, number, kinds, **flags)
    attention("bf16", 16, 8, 96, splits=3, norm=False)
    products("plain", gated=True, early=True)
    products("int8", gated=False, early=False)
    products("int4", gated=True, early=False)
    print("every kernel of the step compiles")


if __name__ == "__main__":
    main()
