"""Speculative decoding in which the model's own first layers guess."""

from typing import Any, ClassVar

from pydantic import Field

from engine.optimizations import Speculation
from engine.plan import Plan

UNCUT_BY_GENERATE = ("gpt_neox", "gpt_neo", "gptj", "gpt_bigcode", "gpt_oss", "opt", "bloom", "mpt", "falcon", "codegen", "stablelm")  # fmt: skip  # noqa: E501
"""Families whose code in transformers runs all layers, whatever their number is set to."""


class EarlyExit(Speculation):
    """Let the model's own first layers guess the next tokens, and the whole model check them in one step.

    A token often is decided before the last layer. The first layers, followed by the model's own norm and head,
    guess a few tokens; all layers then read them at once and keep those that they would have written. There is no
    second model to load and no second cache. Few layers guess quickly and badly, many well and slowly. Models
    trained for it gain; ordinary ones spread their decision over all layers, so expect it to lose there.
    Source: LayerSkip, arXiv:2404.16710.
    """

    title: ClassVar[str] = "Early exit"
    reasons: ClassVar[dict[str, str]] = {
        "faster": "the first layers often know the token that all layers would write",
        "slower": "the first layers of a model that was not trained for it guess badly, or cost nearly a whole step",
        "same": "what the first layers' right guesses saved, their steps cost again",
    }

    layers: int = Field(8, ge=1, le=128, title="Layers", description="How many of the model's first layers guess.")

    def limits(self, machine: Any, model: Any = None) -> str | None:
        if model is None:
            return None
        if not model.keeps_kv:
            return f"A {model.model_type} model keeps a running state, from which no guess can be taken back."
        if self.layers >= model.layers:
            return (
                f"The model has {model.layers} layers, so {self.layers} of them are no early exit: "
                f"set the layers of early exit to {max(1, model.layers - 1)} or fewer."
            )
        return None

    def on_transformers(self, plan: Plan) -> None:
        self.guess(plan, layers=self.layers)
        plan.expected["speculation.layers"] = self.layers

    on_generate = on_transformers

    def settle(self, plan: Plan) -> str | None:
        if plan.backend == "generate" and plan.shape and plan.shape.model_type in UNCUT_BY_GENERATE:
            return (
                f"transformers' generate runs all layers of a {plan.shape.model_type} model: "
                "use the Pitlane loop for early exit."
            )
        return super().settle(plan)

    def badge(self) -> str:
        return f"first {self.layers} layers draft {self.drafts()}"
