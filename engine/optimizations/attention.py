"""How attention is computed: materialised scores or one fused operator."""

from typing import ClassVar, Literal, Self

from pydantic import Field

from engine.optimizations import Optimization
from engine.plan import Plan


class Attention(Optimization):
    """Compute attention in one fused operator instead of writing out the whole score matrix.

    Eager attention multiplies queries with keys, writes the matrix of scores to memory, takes its softmax,
    reads it again and multiplies with the values. The fused operator (SDPA) does the same in tiles that stay
    in cache, so neither time nor memory grows with the square of the prompt. The gain shows in the first
    token of a long prompt; with a short one there is little to see. The result is the same up to rounding.
    Source: FlashAttention, arXiv:2205.14135.
    """

    title: ClassVar[str] = "Attention"
    group: ClassVar[str] = "attention"
    always: ClassVar[bool] = True
    moves: ClassVar[dict[str, str]] = {"ttft_ms": "down"}
    reasons: ClassVar[dict[str, str]] = {
        "faster": "the fused operator never writes the score matrix to memory",
        "slower": "the score matrix is written to memory and read again",
        "same": "the context is short, so attention is a small part of a step",
    }

    kernel: Literal["sdpa", "eager"] = Field(
        "sdpa", title="Attention", description="sdpa: one fused operator. eager: the score matrix in full."
    )

    def on_transformers(self, plan: Plan) -> None:
        plan.attention = self.kernel
        plan.expected["attention"] = plan.attention

    on_generate = on_transformers

    def because(self, other: Self | None, word: str) -> str | None:
        fits = {"sdpa": ("faster", "same"), "eager": ("slower", "same")}
        return self.reasons.get(word) if word in fits[self.kernel] else None

    def badge(self) -> str:
        return f"{self.kernel} attention"
