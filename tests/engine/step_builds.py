"""Compile the kernels of a whole decode step for an NVIDIA GPU, which needs none."""

import triton

from engine.kernels import argmax, decode_attention
from tests.engine.kernel_builds import build

SINGLES = dict.fromkeys(("cosines", "sines", "parts", "peaks", "totals"), "*fp32") | {"scale": "fp32"}
WHOLES = ("places", "pads", "banned", "chosen", "newest", "steps", "ring", "words", "stamps")
COUNTS = dict.fromkeys(WHOLES, "*i64") | dict.fromkeys(("arrived", "ids", "met"), "*i32")
FULL = {"MAILBOX": True, "STAMPED": True, "EMBEDDED": True, "WIDTH": 1024}
BARE = {"MAILBOX": False, "STAMPED": True, "EMBEDDED": False, "WIDTH": 1}


def attention(number: str, tokens: int, group: int, size: int, splits: int, norm: bool) -> None:
    """Heads of 96 fill three quarters of a block; one part alone needs no meeting."""
    lines, block = triton.next_power_of_2(tokens * group), 128 if size == 96 else size
    build(
        decode_attention._decode, number, COUNTS | SINGLES | {"qkv": f"*{number}"},
        TOKENS=tokens, GROUP=group, HEADS=2 * group, SIZE=size, SPLITS=splits, LEAST=256, M=max(16, lines), N=32,
        D=block, R=lines, TILE=2, NORM=norm, WIDE=False,
    )  # fmt: skip


def main() -> None:
    for number in ("fp32", "bf16"):
        kinds = COUNTS | SINGLES | dict.fromkeys(("logits", "embedding", "hidden"), f"*{number}")
        attention(number, 1, 4, 128, splits=8, norm=True)
        attention(number, 1, 3, 64, splits=8, norm=False)
        attention(number, 8, 1, 64, splits=1, norm=False)
        for flags in (FULL, BARE):
            build(argmax._greedy, number, kinds, COLUMNS=2048, BLOCKS=32, **flags)
            build(argmax._advanced, number, kinds, **flags)
    attention("bf16", 16, 8, 96, splits=3, norm=False)
    print("every kernel of the step compiles")


if __name__ == "__main__":
    main()
