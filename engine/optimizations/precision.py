"""Number format of weights and activations."""

from typing import ClassVar, Literal, Self

from pydantic import Field

from engine.optimizations import AMPERE, Optimization
from engine.plan import Plan


class Precision(Optimization):
    """Store and multiply numbers in 16 bits instead of 32.

    Making one token reads every weight once, so at batch 1 the speed limit is memory bandwidth divided by
    bytes. 16-bit weights are half the bytes: up to twice the speed where the processor multiplies them well.
    bfloat16 keeps float32's range with fewer digits, float16 keeps more digits in a smaller range. Rounding
    may flip a near tie between two tokens, so the text can drift from the float32 one. It hurts on processors
    without 16-bit instructions. Source: Kalamkar et al. 2019, arXiv:1905.12322.
    """

    title: ClassVar[str] = "Number format"
    group: ClassVar[str] = "quantization"
    always: ClassVar[bool] = True
    lossless: ClassVar[bool] = False
    moves: ClassVar[dict[str, str]] = {"tpot_ms": "down", "weights_bytes": "down"}
    reasons: ClassVar[dict[str, str]] = {
        "faster": "16-bit weights are half the bytes to read for every token",
        "slower": "16-bit numbers must be converted here before they are multiplied",
    }

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        title="Number format",
        description="How weights and activations are stored; auto is float32 on a CPU and bfloat16 on a GPU, "
        "float16 on one that is older than Ampere.",
    )

    def on_transformers(self, plan: Plan) -> None:
        auto = "float32" if plan.device == "cpu" else "float16" if plan.older_than(AMPERE) else "bfloat16"
        plan.dtype = auto if self.dtype == "auto" else self.dtype
        plan.expected["dtype"] = plan.dtype

    on_generate = on_transformers

    def settle(self, plan: Plan) -> str | None:
        if plan.dtype == "float16" and plan.device == "cpu":
            return (
                "float16 has no fast matrix product on a CPU (a prompt takes minutes): "
                "choose bfloat16 or float32 for the number format."
            )
        return None

    def because(self, other: Self | None, word: str) -> str | None:
        narrow = [part.dtype in ("bfloat16", "float16") for part in (self, other or type(self)())]
        if narrow == [True, False]:
            return self.reasons.get(word)
        if narrow == [False, True] and word == "slower":
            return "32-bit weights are twice the bytes to read for every token"
        return None

    def exact(self) -> Self:
        return type(self)(dtype="float32")

    def expected_loss(self) -> tuple[float, float]:
        return LOSS[self.dtype]

    def badge(self) -> str:
        return self.dtype


LOSS = {"float32": (1e-4, 0.99), "float16": (0.002, 0.97), "bfloat16": (0.005, 0.93), "auto": (0.005, 0.93)}
"""Measured: bfloat16 0.0009 and 0.97. auto may be bfloat16."""
