"""Pitlane's own loop over a model's modules: the plan decides which cache, which loop and which rewrites."""

from typing import Any

import torch
from transformers import StaticCache

from engine.backends import Emit
from engine.decode.compiled import compile_step
from engine.decode.loop import decode
from engine.decode.prompts import Batch
from engine.decode.sampling import Sampling
from engine.decode.session import Loaded
from engine.decode.speculate import speculate
from engine.decode.stepper import Growing, Preallocated, Recompute, Stepper
from engine.plan import Plan

CACHE_STEP = 64
"""Static caches are rounded up to this many tokens, so that small changes of length reuse them."""


class ModuleSession(Loaded):
    """Pitlane's own loop over the model's modules."""

    def __init__(self) -> None:
        super().__init__()
        self.caches: dict[tuple[int, int], StaticCache] = {}
        self.stepper: Stepper | None = None
        self.compiled: Any = None

    @torch.inference_mode()
    def turn(self, plan: Plan, batch: Batch, sampling: Sampling, emit: Emit) -> None:
        self.stepper = self._stepper(plan, batch)
        if plan.speculation:
            speculate(self.stepper, batch, sampling, plan.speculation, emit)
        else:
            decode(self.stepper, batch, sampling, emit)

    def whole(self, plan: Plan, workload: Any) -> Batch:
        """One cache length serves all batches: a compiled step then meets as few shapes as can be."""
        whole = super().whole(plan, workload)
        guesses = plan.speculation["guesses"] + 1 if plan.speculation else 0
        self.length = -(-(whole.width + workload.max_new_tokens + guesses) // CACHE_STEP) * CACHE_STEP
        return whole

    def shape(self, plan: Plan, batch: Batch) -> tuple:
        length = self.length if plan.cache == "static" else 0
        return (*super().shape(plan, batch), length)

    def _stepper(self, plan: Plan, batch: Batch) -> Stepper:
        if plan.cache == "off":
            return Recompute(self.model, batch.pad)
        if plan.cache == "dynamic":
            return Growing(self.model, batch.pad)
        return Preallocated(self.model, batch.pad, self._cache(len(batch.pad)), self._compiled(plan))

    def _cache(self, rows: int) -> StaticCache:
        """Kept between turns: a compiled step may only meet the cache that it was compiled with."""
        key = (rows, self.length)
        if key not in self.caches:
            self.caches[key] = StaticCache(config=self.model.config, max_cache_len=self.length)
        return self.caches[key]

    def _compiled(self, plan: Plan) -> Any:
        if plan.compile and self.compiled is None:
            self.compiled = compile_step(self.model, plan)
        return self.compiled if plan.compile else None

    def memory(self) -> dict[str, int | None]:
        return {**super().memory(), "kv": self.stepper.kv_bytes() if self.stepper else None}

    def effective(self) -> dict[str, Any]:
        cache = self.stepper.cache_name() if self.stepper else None
        return {**super().effective(), "cache": cache}
