"""Weights in 8 or 4 bits, by the bitsandbytes library."""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field

from engine.models.architecture import odd_width
from engine.optimizations import WeightQuantization
from engine.plan import Plan

THRESHOLD = 6.0


class BitsAndBytes(WeightQuantization):
    """Keep the weights of the linear layers in 8 or 4 bits and widen them while multiplying.

    Fewer bits are fewer bytes to read for every token and less memory: int8 is a quarter of float32, nf4 and
    fp4 an eighth. The widening costs work, so at batch 1 int8 is often slower than 16 bits although it reads
    less; 4 bits have a fused kernel and may win. int8 keeps columns with outliers in 16 bits and changes the
    answers little; on a small model nf4 prefers another next token one time in three, fp4 more often.
    Embeddings and the output head stay as they are.
    Sources: LLM.int8, arXiv:2208.07339; QLoRA, arXiv:2305.14314.
    """

    title: ClassVar[str] = "Weight quantization (bitsandbytes)"
    package: ClassVar[str] = "bitsandbytes"
    only: ClassVar[dict[str, tuple[str, ...]]] = {
        "threshold": ("int8",),
        "double": ("nf4", "fp4"),
        "compute": ("nf4", "fp4"),
    }
    reasons: ClassVar[dict[str, str]] = {
        "faster": "quantized weights are fewer bytes to read for every token",
        "slower": "widening the quantized weights costs more than the bytes it saves",
        "same": "what fewer bytes save, widening them costs again",
    }

    kind: Literal["int8", "nf4", "fp4"] = Field(
        "nf4",
        title="Bits",
        description="int8: 8-bit integers (LLM.int8). nf4: 16 levels spaced for bell-shaped weights. "
        "fp4: 4-bit floating point.",
    )
    threshold: float = Field(
        THRESHOLD,
        ge=0,
        le=20,
        title="Outlier threshold",
        description="int8 only: columns of activations with a larger value are multiplied in 16 bits. "
        "0: none are, which spares a GPU a wait in every layer.",
    )
    double: bool = Field(
        False,
        title="Double quantization",
        description="nf4 and fp4 only: the scales are quantized too, which saves 0.4 bits a weight.",
    )
    compute: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        title="Compute format",
        description="nf4 and fp4 only: the numbers that widened weights are multiplied in; auto is the number format.",
    )

    @classmethod
    def advice(cls, machine: Any) -> str:
        other = "packed int4 with the native step"
        return f"Take nf4 for models and engines that the native step does not know; for the Llama family {other}."

    def limits(self, machine: Any, model: Any = None) -> str | None:
        if self.kind != "int8" and self.threshold != THRESHOLD:
            return f"The outlier threshold belongs to int8: leave it at {THRESHOLD:g}, or choose int8."
        if self.kind == "int8" and self.double:
            return "Double quantization belongs to nf4 and fp4: switch it off, or choose one of them."
        if self.kind == "int8" and self.compute != "auto":
            return "The compute format belongs to nf4 and fp4: set it to auto, or choose one of them."
        return self._undone() if not machine.gpus and "avx512_bf16" in machine.instructions else None

    def _undone(self) -> str | None:
        """What bitsandbytes does not heed on processors with bfloat16 products, where it packs the weights anew."""
        if self.double:
            return (
                "On this processor bitsandbytes widens the scales again, so double quantization saves nothing: "
                "switch it off, or use a GPU."
            )
        if self.compute in ("float32", "float16"):
            return (
                "On this processor bitsandbytes multiplies 4-bit weights in bfloat16: "
                "set the compute format to auto, or use a GPU."
            )
        return None

    def on_transformers(self, plan: Plan) -> None:
        own = {"threshold": self.threshold} if self.bits == 8 else {"double": self.double, "compute": self.compute}
        self.claim(plan, **own)
        if self.double:
            plan.expected["double_quantization"] = True
        if self.kind == "int8":
            plan.expected["outlier_threshold"] = self.threshold
        elif self.compute != "auto":
            plan.expected["compute_format"] = self.compute

    on_generate = on_transformers

    def settle(self, plan: Plan) -> str | None:
        if self.compute == "float16" and plan.device == "cpu":
            return "float16 has no fast matrix product on a CPU: set the compute format to auto, float32 or bfloat16."
        if self.bits == 4 and plan.device == "cpu" and (odd := odd_width(plan.shape)):
            return f"On a CPU bitsandbytes needs layers in steps of 64 and this model has one of {odd}: choose int8."
        return super().settle(plan)

    def because(self, other: Self | None, word: str) -> str | None:
        if other is None:
            return self.reasons.get(word)
        return "4 bits are half the bytes of 8" if word == "faster" and self.bits < other.bits else None

    @property
    def bits(self) -> int:
        """Bits of one weight."""
        return 8 if self.kind == "int8" else 4

    def expected_loss(self) -> tuple[float, float]:
        return LOSS[self.kind]


LOSS = {"int8": (0.05, 0.85), "nf4": (0.4, 0.58), "fp4": (0.7, 0.5)}
"""Measured: int8 0.017 and 0.93 (0.028 and 0.90 with threshold 0), nf4 0.27 and 0.66, fp4 0.48 and 0.60."""
