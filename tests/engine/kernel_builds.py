"""Compile the fused kernels for an NVIDIA GPU, which needs none: what the interpreter accepts may not compile."""

from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from engine.kernels import rms_norm, rope, swiglu

HOPPER = GPUTarget("cuda", 90, 32)
POINTERS = {
    "values", "residual", "weight", "normed", "total", "gate", "up", "out",
    "q", "k", "v", "cos", "sin", "q_weight", "k_weight", "turned", "keys",
}  # fmt: skip


def build(kernel: Any, number: str, others: dict[str, str] | None = None, **constants: Any) -> None:
    """Compile for one number format; arguments that are 1 at a call are constants there, as Triton makes them.

    `others` gives the kinds of arguments that POINTERS does not know.
    """
    kinds = (
        dict.fromkeys(POINTERS, f"*{number}") | {"start": "*i64", "cache_rows": "*i64", "eps": "fp32"} | (others or {})
    )
    signature = {name: "constexpr" if name in constants else kinds.get(name, "i32") for name in kernel.arg_names}
    made = triton.compile(ASTSource(kernel, signature, constants), target=HOPPER)
    assert made.asm["cubin"]


def main() -> None:
    for number in ("fp32", "bf16"):
        for add, one_plus in ((True, False), (True, True), (False, False)):
            build(rms_norm._rms_norm, number, ADD=add, ONE_PLUS=one_plus, BLOCK=1024)
        build(rms_norm._rms_norm, number, ADD=True, ONE_PLUS=False, BLOCK=1, columns=1)
        for gelu in (True, False):
            build(swiglu._gated, number, GELU=gelu, SCALE=swiglu.SQRT_2_OVER_PI, BLOCK=swiglu.BLOCK)
        for norm in (True, False):
            build(rope._rope, number, NORM=norm, AWAY=False, BLOCK=32)
            build(rope._rope, number, NORM=norm, AWAY=False, BLOCK=32, tokens=1, start_batch=1)
            build(rope._rope, number, NORM=norm, AWAY=True, BLOCK=32)
    print("every kernel compiles")


if __name__ == "__main__":
    main()
