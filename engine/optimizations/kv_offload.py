"""Keys and values kept in the host's memory between layers."""

from typing import Any, ClassVar

from engine.optimizations import Optimization
from engine.plan import Plan

ON_HOST = "Keys and values already lie in host memory on a CPU: switch offloading off, or use a GPU."


class KVOffload(Optimization):
    """Keep the keys and values in the host's memory and bring one layer at a time to the GPU.

    While a layer computes, the next layer's keys and values travel to the GPU, and the last one's travel back. The
    GPU then holds those of about two layers instead of all of them, so a text fits that would not fit otherwise.
    Every step moves the whole cache over the bus twice, which is far slower than the GPU's own memory: tokens take
    longer, the more so the longer the text. Use it only when the memory is not enough. The text is unchanged.
    Source: FlexGen, Sheng et al. 2023, arXiv:2303.06865.
    """

    title: ClassVar[str] = "KV-cache offloading"
    group: ClassVar[str] = "kv cache"
    moves: ClassVar[dict[str, str]] = {"tpot_ms": "up"}
    reasons: ClassVar[dict[str, str]] = {
        "slower": "every step moves the keys and values of all layers between the host and the GPU",
        "same": "the text is short, so there is little to move",
    }

    @classmethod
    def unavailable(cls, machine: Any, model: Any = None) -> str | None:
        return None if machine.gpus else ON_HOST

    def on_transformers(self, plan: Plan) -> None:
        plan.offload = True
        plan.expected["offload"] = True

    on_generate = on_transformers

    def settle(self, plan: Plan) -> str | None:
        if plan.device == "cpu":
            return ON_HOST
        if plan.cache != "dynamic" or plan.compile or plan.graph or plan.continuous:
            return (
                "Offloaded keys and values change their place in memory in every step: set the KV cache to dynamic and "
                "switch the compiled step, the CUDA graph and continuous batching off, or offloading."
            )
        if plan.speculation:
            return "Offloading and speculation do not go together: switch one of the two off."
        return None

    def badge(self) -> str:
        return "KV on the host"
