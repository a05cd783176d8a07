"""A sliding window over the text, with attention sinks."""

from typing import Any, ClassVar

from pydantic import Field

from engine.optimizations import Optimization
from engine.plan import Plan


class KVWindow(Optimization):
    """Keep the keys and values of the first few tokens and the newest ones only; forget what lies between.

    Memory and the time of a step stop growing, however long the text becomes. The first tokens are kept because
    models put attention that they need nowhere else on them (attention sinks): without them the text falls apart.
    The prompt is read in full, then trimmed; kept keys stay turned to the positions at which they were written.
    What has been forgotten is gone: a question about the middle of a long text is answered wrongly.
    Source: StreamingLLM, Xiao et al. 2023, arXiv:2309.17453.
    """

    title: ClassVar[str] = "Sliding window"
    group: ClassVar[str] = "kv cache"
    lossless: ClassVar[bool] = False
    moves: ClassVar[dict[str, str]] = {"tpot_ms": "down"}
    reasons: ClassVar[dict[str, str]] = {
        "faster": "a step looks at a window of the text instead of all of it, and nothing is copied to grow",
        "same": "the text is hardly longer than the window, or attention is a small part of a step",
    }

    window: int = Field(256, ge=16, le=4096, title="Window", description="Newest tokens that are kept.")
    sinks: int = Field(4, ge=0, le=64, title="Attention sinks", description="First tokens that are kept as well.")

    @classmethod
    def unavailable(cls, machine: Any, model: Any = None) -> str | None:
        if model and model.sliding:
            return (
                f"{model.sliding} of this model's {model.layers} layers were trained with a window of {model.window} "
                "tokens of their own: choose a model without one."
            )
        if model and model.alibi:
            return (
                "The bias by distance (ALiBi) of this model needs every token seen in the KV cache: "
                "choose another model for a sliding window."
            )
        return None

    def expected_loss(self) -> tuple[float, float]:
        return LOSS if self.sinks and self.window >= 128 else LOST

    def on_transformers(self, plan: Plan) -> None:
        plan.window = {"sinks": self.sinks, "window": self.window}
        plan.expected |= {"window": self.window, "sinks": self.sinks}

    def settle(self, plan: Plan) -> str | None:
        if plan.cache != "dynamic" or plan.compile or plan.graph:
            return (
                "The sliding window brings a KV cache of its own: set the KV cache to dynamic and switch the compiled "
                "step and the CUDA graph off, or the sliding window."
            )
        if plan.speculation:
            return (
                "What has left the window cannot be taken back when a guess was wrong: "
                "switch speculation off, or the sliding window."
            )
        others = ((plan.offload, "offloading"), (plan.prefix, "prefix reuse"), (plan.continuous, "continuous batching"))
        for on, name in others:
            if on:
                return f"The sliding window does not go together with {name}: switch one of the two off."
        return None

    def badge(self) -> str:
        return f"window {self.window} + {self.sinks}"


LOSS = (0.1, 0.85)
"""Up to 400 tokens of text with sinks and a window of 128 or more. Measured with 128: 0.059 and 0.875."""
LOST = (2.0, 0.3)
"""A narrower window, or one without sinks. Measured with 64: 1.07 and 0.45 without sinks, 0.18 and 0.73 with."""
