"""A batch that requests enter and leave at every step."""

from typing import Any, ClassVar

from pydantic import Field

from engine.optimizations import Optimization
from engine.plan import Plan

ON_A_GPU, ELSEWHERE = 512, 128
"""Tokens of prompts in a step unless chosen. A GPU takes some 14 ms to compute so many of an 8B shape, and 4.9 ms for a
step without (the first reckoned); two cores took 205 ms for 128 of the embedded model beside seven next tokens."""
ONE_PROCESS = "Continuous batching has all requests in one process: switch replicas and tensor parallelism off."
OWN_CACHE = "Continuous batching brings its own store of keys and values: set the KV cache to dynamic, and plain."
MOVING_SHAPE = "A packed step has another shape every time: switch compiling and graphs off, or continuous batching."
OWN_ATTENTION = ("bloom", "falcon", "gpt_neo", "gpt_neox_japanese", "mpt", "openai-gpt", "xglm")
"""Families whose code in transformers attends by itself, where others ask an interface that slots can stand behind."""
UNCAPPED = (
    "transformers' continuous batching leaves out the cap on this model's attention scores and would write other text: "
    "use the Pitlane loop."
)


class ContinuousBatching(Optimization):
    """Let requests enter and leave the batch at every step, instead of waiting until the whole batch is done.

    A static batch runs to its longest answer: finished requests hold their places, new ones wait outside. Here a
    free slot is given away at once, and long prompts are read in chunks beside the others' tokens. It wins when
    requests arrive by themselves and answers differ in length; alike requests that come together gain nothing.
    Each slot keeps memory for the longest request. A step with a chunk takes longer: small chunks keep answers
    fluent, large ones read prompts sooner. Sources: Orca, OSDI 2022; Sarathi-Serve, arXiv:2403.02310.
    """

    title: ClassVar[str] = "Continuous batching"
    group: ClassVar[str] = "parallelism"
    shares: ClassVar[bool] = True
    moves: ClassVar[dict[str, str]] = {"output_tok_per_s": "up", "queue_ms": "down", "ttft_ms": "down"}
    reasons: ClassVar[dict[str, str]] = {
        "faster": "a free place is filled at the next step, so more requests share each reading of the weights",
        "slower": "the requests came one at a time, so there was nobody to share a step with",
        "same": "requests that come rarely or end together leave a batch nothing to fill",
    }

    slots: int = Field(8, ge=1, le=64, title="Slots", description="Requests in the engine at once, at most.")
    chunk: int = Field(
        0,
        ge=0,
        le=2048,
        title="Chunk",
        description="Prompt tokens that one step reads beside everybody's next token. 0: 512 on a GPU, else 128.",
    )
    memory_mb: int = Field(
        0,
        ge=0,
        le=1_000_000,
        title="Memory for slots",
        description="Megabytes of keys and values: it decides how many slots fit. 0: as many as asked for.",
    )

    @classmethod
    def unavailable(cls, machine: Any, model: Any = None) -> str | None:
        if model and not model.keeps_kv:
            return f"{model.model_type} carries a running state instead of keys and values, which slots cannot hold."
        if model and model.model_type in OWN_ATTENTION:
            return (
                f"Continuous batching attends over slots, and the code of a {model.model_type} model has an attention "
                "of its own: use static batching."
            )
        return None

    def on_transformers(self, plan: Plan) -> None:
        chunk = self.chunk or (ON_A_GPU if plan.device == "cuda" else ELSEWHERE)
        plan.continuous = {**self.knobs(), "chunk": chunk}
        plan.expected |= {"continuous": True, "continuous.slots": self.slots, "continuous.chunk": chunk}

    on_generate = on_transformers

    def settle(self, plan: Plan) -> str | None:
        clashes = (
            (plan.batch > 1, "A batch is either static or continuous: switch one of the two off."),
            (plan.replicas > 1 or plan.tensor_parallel > 1, ONE_PROCESS),
            (plan.cache != "dynamic" or plan.window or plan.kv_bits or plan.offload, OWN_CACHE),
            (plan.prefix, "Continuous batching reads every prompt in full: switch prefix reuse off, or this."),
            (plan.speculation, "Speculation checks the guesses of one request at a time: switch it off, or this."),
            (plan.compile or plan.graph, MOVING_SHAPE),
            (plan.backend == "generate" and plan.shape and plan.shape.soft_cap, UNCAPPED),
            (self._other_attention(plan), "Continuous batching attends over slots: set attention to auto or sdpa."),
        )
        return next((sentence for clash, sentence in clashes if clash), None)

    def _other_attention(self, plan: Plan) -> bool:
        """Slots bring their own, in the place of sdpa or of what a family has for want of it."""
        eager = bool(plan.shape and plan.shape.needs_eager)
        return bool(plan.sdpa) or (plan.attention != "sdpa" and not (plan.attention == "eager" and eager))

    def badge(self) -> str:
        return f"continuous, {self.slots} slots"
