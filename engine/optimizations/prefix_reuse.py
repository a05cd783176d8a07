"""Keys and values of a beginning that several prompts share."""

from typing import Any, ClassVar

from pydantic import Field

from engine.optimizations import Optimization
from engine.plan import Plan


class PrefixReuse(Optimization):
    """Read a beginning that several prompts share once, and copy its keys and values for the others.

    Keys and values of a token depend only on the tokens before it, so two prompts with the same system prompt, the
    same examples or the same document in front have the same ones there. The first request reads everything; later
    ones read only what is new, and their first token comes sooner. It does nothing for the tokens after that, and
    nothing for prompts that differ from the first word on. The kept beginnings take memory. Here they are emptied
    before each round, so that every round starts alike. Source: SGLang, Zheng et al. 2024, arXiv:2312.07104.
    """

    title: ClassVar[str] = "Prefix reuse"
    group: ClassVar[str] = "kv cache"
    moves: ClassVar[dict[str, str]] = {"ttft_ms": "down"}
    reasons: ClassVar[dict[str, str]] = {
        "faster": "most tokens of the later prompts were read already, and their keys and values copied",
        "same": "the prompts share too little at their beginning, or reading them is a small part of the time",
    }

    least: int = Field(
        16, ge=1, le=4096, title="Shortest beginning", description="Tokens that prompts must share to be worth a copy."
    )

    @classmethod
    def unavailable(cls, machine: Any, model: Any = None) -> str | None:
        if model and model.sliding:
            return (
                f"{model.sliding} of this model's {model.layers} layers forget what leaves their window of "
                f"{model.window} tokens, so a kept beginning would have holes: choose a model without a window."
            )
        return None

    def on_transformers(self, plan: Plan) -> None:
        plan.prefix = self.least
        plan.expected |= {"prefix": True, "prefix.least": self.least}

    def settle(self, plan: Plan) -> str | None:
        if plan.cache == "off":
            return "Without a KV cache there is nothing to reuse: set it to dynamic or static, or switch reuse off."
        others = ((plan.graph, "a CUDA graph"), (plan.offload, "offloading"))
        for on, name in (*others, (plan.continuous, "continuous batching")):
            if on:
                return f"Prefix reuse does not go together with {name}: switch one of the two off."
        return None

    def badge(self) -> str:
        return "prefix reuse"
