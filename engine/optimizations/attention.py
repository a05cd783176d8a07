"""How attention is computed: materialised scores, one of torch's fused operators, or a compiled one."""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field

from engine.models.architecture import Architecture
from engine.models.families import WITHOUT_FLEX, WITHOUT_SDPA
from engine.optimizations import AMPERE, Optimization
from engine.plan import Plan

FUSED = ("sdpa", "math", "efficient", "flash")
TILED = ("sdpa", "efficient", "flash", "flex")
UNCAPPED = "{} caps its attention scores, which torch's fused attention cannot do: choose auto, eager or flex."


class Attention(Optimization):
    """Compute attention tile by tile in one operator instead of writing out the whole score matrix.

    Eager attention writes the matrix of scores to memory, takes its softmax, reads it again and multiplies with
    the values. Tiled operators do the same piece by piece in cache: memory no longer grows with the square of the
    prompt, and the work, which still does, waits less for memory. torch has memory-efficient (GPU), flash, and
    math, which is not tiled; sdpa lets it choose. flex compiles one for just this mask, in half a minute. The gain
    shows in the first token of a long prompt, hardly with a short one. The result is the same up to rounding.
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

    kernel: Literal["auto", "eager", "sdpa", "math", "efficient", "flash", "flex"] = Field(
        "auto",
        title="Attention",
        description="eager: the score matrix in full. sdpa: torch chooses. math, efficient, flash: torch must use "
        "that one. flex: compiled. auto: sdpa, or eager where a model does not know it.",
    )

    def limits(self, machine: Any, model: Any = None) -> str | None:
        if self.kernel in FUSED and model and model.soft_cap:
            return UNCAPPED.format(model.model_type)
        if model and (sentence := self._unknown(model)):
            return sentence
        if self.kernel == "flex" and not machine.compiler:
            return "FlexAttention is compiled and needs a C++ compiler (g++) on this machine: install g++."
        if self.kernel == "flex" and machine.zero_gpu:
            return "FlexAttention must be compiled, which a ZeroGPU Space does not allow: choose sdpa."
        return None

    def _unknown(self, model: Architecture) -> str | None:
        """What transformers' code of this family does not compute in this way, or computes wrongly."""
        kind = model.model_type
        if self.kernel in FUSED and kind in WITHOUT_SDPA:
            return f"transformers has no fused attention for a {kind} model: set attention to auto or eager."
        if self.kernel == "flex" and kind in WITHOUT_FLEX:
            other = "eager" if kind in WITHOUT_SDPA else "sdpa"
            return f"transformers has no FlexAttention for a {kind} model: set attention to auto or {other}."
        if self.kernel == "eager" and model.alibi:  # in the mask already, and added to the scores once more
            return f"transformers' eager attention adds a {kind} model's bias by distance twice: choose auto or sdpa."
        return None

    def on_transformers(self, plan: Plan) -> None:
        self.on_generate(plan)
        if plan.sdpa:
            plan.expected["sdpa"] = plan.sdpa

    def on_generate(self, plan: Plan) -> None:
        usual = "eager" if plan.shape and plan.shape.needs_eager else "sdpa"
        kernel = usual if self.kernel == "auto" else self.kernel
        plan.attention = {"flex": "flex_attention", "eager": "eager"}.get(kernel, "sdpa")
        plan.sdpa = kernel if kernel in ("math", "efficient", "flash") else None
        plan.expected["attention"] = plan.attention

    def settle(self, plan: Plan) -> str | None:
        if plan.sdpa == "efficient" and plan.device == "cpu":
            return "Memory-efficient attention exists on a GPU only: choose flash, math or sdpa."
        if plan.sdpa == "flash" and plan.older_than(AMPERE):
            return (
                f"Flash attention needs a GPU of compute capability {AMPERE} or newer, and this one has "
                f"{plan.capability}: choose efficient."
            )
        if plan.sdpa == "flash" and plan.device == "cuda" and plan.dtype == "float32":
            return "Flash attention on a GPU needs 16-bit numbers: set the number format to bfloat16."
        if plan.sdpa == "flash" and plan.device == "cuda" and (plan.cache == "static" or plan.batch > 1):
            return "Flash attention on a GPU takes no mask, which a static cache and a batch need: choose efficient."
        if plan.attention == "flex_attention" and (plan.cache == "static" or plan.compile):
            return (
                "transformers' FlexAttention reads the unused part of a static cache: "
                "set the KV cache to dynamic and switch the compiled step off, or choose sdpa."
            )
        if plan.attention == "flex_attention" and plan.device == "cpu" and plan.batch > 1:
            return (
                "torch's FlexAttention does not compile the mask of a padded batch on a CPU: "
                "switch batching off, or choose sdpa."
            )
        return None

    def because(self, other: Self | None, word: str) -> str | None:
        tiled = [(part or type(self)()).kernel in ("auto", *TILED) for part in (self, other)]
        fits = {(True, False): ("faster",), (False, True): ("slower",)}
        return self.reasons.get(word) if word == "same" or word in fits.get(tuple(tiled), ()) else None

    def badge(self) -> str:
        return f"{self.kernel} attention"
