"""Keys and values of earlier tokens in 8 or 4 bits."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from engine.optimizations import Optimization
from engine.plan import Plan


class KVQuantization(Optimization):
    """Keep the keys and values of older tokens in 8 or 4 bits, so that more text fits into memory.

    Keys and values are rounded in groups that share a scale: keys by channel, since a few channels are large in
    every token, values token by token. The newest one or two groups stay exact. It helps when the cache, not the
    weights, fills the memory: long texts, many requests. It seldom makes a single short answer faster, because
    every step first turns the numbers back to full precision. Rounding changes the text: 8 bits hardly, 4 bits
    for keys visibly, for values less. Source: KIVI, Liu et al. 2024, arXiv:2402.02750.
    """

    title: ClassVar[str] = "KV-cache quantization"
    group: ClassVar[str] = "kv cache"
    lossless: ClassVar[bool] = False
    moves: ClassVar[dict[str, str]] = {"tpot_ms": "up"}
    reasons: ClassVar[dict[str, str]] = {
        "faster": "fewer bytes of keys and values are read in each step",
        "slower": "every step turns the packed keys and values back to full precision before it uses them",
        "same": "the text is short, so the keys and values are a small part of a step",
    }

    keys: Literal[16, 8, 4] = Field(8, title="Bits of keys", description="16: as the model computes them.")
    values: Literal[16, 8, 4] = Field(4, title="Bits of values", description="16: as the model computes them.")
    size: int = Field(
        32,
        ge=16,
        le=128,
        multiple_of=16,
        title="Group size",
        description="Numbers that share a scale: tokens for keys, channels for values. The newest group stays exact.",
    )

    def limits(self, machine: Any, model: Any = None) -> str | None:
        if self.keys == self.values == 16:
            return "With 16 bits for keys and values nothing is packed: choose 8 or 4 bits for one of them."
        if model and 4 in (self.keys, self.values) and model.head_dim % 2:
            return f"Two numbers share a byte, but the heads of this model have {model.head_dim}: choose 8 bits."
        if model and model.sliding and model.sliding == model.layers:
            return (
                f"Every layer of this model keeps only its window of {model.window} tokens, so little is left to pack: "
                "switch KV-cache quantization off."
            )
        return None

    def expected_loss(self) -> tuple[float, float]:
        narrow = (self.keys, self.values).count(4)
        return LOSS[narrow]

    def on_transformers(self, plan: Plan) -> None:
        plan.kv_bits = {"keys": self.keys, "values": self.values, "group": self.size}
        plan.expected |= {"kv_bits": f"{self.keys}/{self.values}", "kv_group": self.size}

    def settle(self, plan: Plan) -> str | None:
        if plan.cache != "dynamic" or plan.compile or plan.graph:
            return (
                "A quantized KV cache grows in packed blocks, which a static cache, a compiled step and a CUDA graph "
                "do not allow: set the KV cache to dynamic and switch those off, or KV-cache quantization."
            )
        others = ((plan.window, "the sliding window"), (plan.offload, "offloading"), (plan.prefix, "prefix reuse"))
        for on, name in (*others, (plan.continuous, "continuous batching")):
            if on:
                return f"Packed keys and values do not go together with {name}: switch one of the two off."
        return None

    def badge(self) -> str:
        return f"keys {self.keys}, values {self.values} bits"


LOSS = ((0.001, 0.98), (0.02, 0.93), (0.03, 0.93))
"""By how many of the two have 4 bits. Measured on two texts: up to 1.5e-5 and 1.0, 0.0014 and 0.99, 0.005 and 0.98."""
