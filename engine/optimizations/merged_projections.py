"""Projections that read the same input, merged into one product each."""

from typing import Any, ClassVar

from engine.optimizations import Optimization
from engine.plan import Plan

MERGED_ALREADY = ("gpt2", "gpt_neox", "gpt_bigcode", "bloom", "falcon", "mpt", "phi3", "glm4", "chatglm")
"""Architectures whose checkpoints hold query, key and value as one matrix."""


class MergedProjections(Optimization):
    """Multiply once where several matrices read the same input.

    Query, key and value are three products of the same vector, and gate and up of the feed-forward layer are
    two. Stacked into one matrix each, they are two products instead of five in every layer: fewer operators
    to launch, and one long product instead of short ones. It helps where launching costs more than computing:
    a small model on a GPU. Where reading the weights is all of the time it changes nothing, since no byte is
    saved. The weights are moved, not copied. Source: Megatron-LM, arXiv:1909.08053.
    """

    title: ClassVar[str] = "Merged projections"
    group: ClassVar[str] = "fusion"
    moves: ClassVar[dict[str, str]] = {"tpot_ms": "down"}
    reasons: ClassVar[dict[str, str]] = {
        "faster": "two products in each layer are launched instead of five",
        "slower": "one long product does not suit the processor as well as short ones here",
        "same": "reading the weights takes nearly all of the time, and merging saves no byte",
    }

    @classmethod
    def unavailable(cls, machine: Any, model: Any = None) -> str | None:
        if model and model.model_type in MERGED_ALREADY:
            return f"A {model.model_type} model has merged projections already: there is nothing left to merge."
        if model and model.narrow:
            return f"This checkpoint comes quantized ({model.narrow}), and only plain weights can be merged."
        return None

    def on_transformers(self, plan: Plan) -> None:
        plan.merged = True
        plan.expected["merged"] = True

    def settle(self, plan: Plan) -> str | None:
        if plan.quantization:
            return "Merged projections join plain weights: switch weight quantization off, or merged projections."
        if plan.tensor_parallel > 1:
            return "Tensor parallelism cuts each projection itself: switch it off, or merged projections."
        return None

    def badge(self) -> str:
        return "merged projections"
