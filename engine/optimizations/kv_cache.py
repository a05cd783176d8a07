"""Whether and how keys and values of earlier tokens are kept."""

from typing import ClassVar, Literal, Self

from pydantic import Field

from engine.optimizations import Optimization
from engine.plan import Plan


class KVCache(Optimization):
    """Keep the keys and values of earlier tokens instead of computing them again for every new one.

    Without a cache every token costs a pass over the whole text so far, and the cost grows with its length.
    With one, a step handles a single token. The dynamic cache grows by copying; the static one is allocated
    once at full length, which lets the step be compiled, but attention then always reads that full length.
    The cache costs memory: layers x key-value heads x head size x 2 x bytes for each token.
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

    def on_transformers(self, plan: Plan) -> None:
        plan.cache = self.kind

    on_generate = on_transformers

    def because(self, other: Self | None, word: str) -> str | None:
        off = [part.kind == "off" for part in (self, other or type(self)())]
        fits = {(True, False): ("slower",), (False, True): ("faster",), (False, False): ("same",)}
        return self.reasons.get(word) if word in fits.get(tuple(off), ()) else None

    def badge(self) -> str:
        return "no KV cache" if self.kind == "off" else f"{self.kind} cache"
