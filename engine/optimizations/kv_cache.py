"""Whether and how keys and values of earlier tokens are kept."""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field

from engine.optimizations import FULL_LENGTH, Optimization
from engine.plan import Plan


class KVCache(Optimization):
    """Keep the keys and values of earlier tokens instead of computing them again for every new one.

    Without a cache each new token costs a pass over the whole text; with one, a step handles a single token.
    The dynamic cache grows, copying itself with every token. The static one is allocated once at full length,
    which lets the step be compiled, but attention then always reads that full length. The price is memory:
    2 x layers x key-value heads x head size x bytes for each token of each request, so long texts and large
    batches can outweigh the weights. Each lane measures it beside the prediction.
    Source: Pope et al. 2022, arXiv:2211.05102.
    """

    title: ClassVar[str] = "KV cache"
    group: ClassVar[str] = "kv cache"
    always: ClassVar[bool] = True
    moves: ClassVar[dict[str, str]] = {"tpot_ms": "down"}
    reasons: ClassVar[dict[str, str]] = {
        "faster": "a step handles one new token instead of the whole text again",
        "slower": "without kept keys and values every token repeats the work for the whole text",
        "same": "both keep the keys and values; only where they lie in memory differs",
    }

    kind: Literal["off", "dynamic", "static"] = Field(
        "dynamic",
        title="KV cache",
        description="off: recompute everything. dynamic: grows with the text. static: allocated once.",
    )

    @classmethod
    def unavailable(cls, machine: Any, model: Any = None) -> str | None:
        if model and not model.keeps_kv:
            return (
                f"Pitlane runs models that attend in all layers, and a {model.model_type} model carries a running "
                "state instead of, or beside, keys and values: choose a model with attention in all layers."
            )
        return None

    def limits(self, machine: Any, model: Any = None) -> str | None:
        return (
            f"{FULL_LENGTH}: set the KV cache to dynamic." if self.kind == "static" and model and model.alibi else None
        )

    def on_transformers(self, plan: Plan) -> None:
        plan.cache = self.kind

    on_generate = on_transformers

    def settle(self, plan: Plan) -> str | None:
        if not (
            plan.compile or plan.graph or plan.kernels or plan.window or plan.continuous or plan.native
        ):  # those bring their own kind of cache
            plan.expected["kv"] = plan.cache
        return None

    def because(self, other: Self | None, word: str) -> str | None:
        off = [part.kind == "off" for part in (self, other or type(self)())]
        fits = {(True, False): ("slower",), (False, True): ("faster",), (False, False): ("same",)}
        return self.reasons.get(word) if word in fits.get(tuple(off), ()) else None

    def badge(self) -> str:
        return "no KV cache" if self.kind == "off" else f"{self.kind} cache"
