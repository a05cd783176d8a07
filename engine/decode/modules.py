"""Pitlane's own loop over a model's modules: the plan decides which cache, which loop and which rewrites."""

import functools
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import StaticCache

from engine.backends import Emit
from engine.decode.arrivals import InTurn, source
from engine.decode.caches import growing_cache, offloaded
from engine.decode.compiled import compile_step, compiled_as, mode_of
from engine.decode.continuous import Engine, engine
from engine.decode.footprint import bits, footprint, group, sinks, window
from engine.decode.fuse import fuse_kernels, kernels, merge_projections, merged
from engine.decode.graphs import GraphStep, graph_decode, graph_step
from engine.decode.launches import launches
from engine.decode.loop import decode
from engine.decode.native import natively
from engine.decode.prefix import Prefixes
from engine.decode.prompts import Batch, check_context
from engine.decode.sampling import Sampling
from engine.decode.session import Loaded
from engine.decode.sinks import Windowed
from engine.decode.stepper import Growing, Preallocated, Recompute, Stepper, keep_all
from engine.event import Phase
from engine.plan import Plan

CACHE_STEP = 64
"""Static caches are rounded up to this many tokens, so that small changes of length reuse them."""


class ModuleSession(Loaded):
    """Pitlane's own loop over the model's modules."""

    def __init__(self) -> None:
        super().__init__()
        self.caches: dict[tuple[int, int, bool], StaticCache] = {}
        self.stepper: Stepper | Engine | None = None
        self.engines: dict[tuple, Engine] = {}
        self.compiled: Any = None
        self.prefixes: Prefixes | None = None
        self.graphs: dict[tuple, GraphStep] = {}
        self.counted: dict[tuple, dict[str, Any]] = {}
        self.ran: tuple = ()
        self.native: Any = None

    def begin(self, plan: Plan, workload: Any) -> Batch:
        """Every turn starts without kept prefixes."""
        self.prefixes = Prefixes(plan.prefix) if plan.prefix else None
        return super().begin(plan, workload)

    @torch.inference_mode()
    def serve(self, plan: Plan, whole: Batch, workload: Any, emit: Emit) -> None:
        if plan.continuous:
            self.ran = self.shape(plan, whole)
            self._engine(plan).run(source(whole, workload, emit), self.sampling(workload))
        else:
            super().serve(plan, whole, workload, emit)

    @torch.inference_mode()
    def turn(self, plan: Plan, batch: Batch, sampling: Sampling, emit: Emit) -> None:
        self.ran = self.shape(plan, batch)
        if plan.continuous:
            self._engine(plan).run(InTurn(batch, emit), sampling)
            return
        if plan.graph:
            self.stepper = graph_decode(self._graph(plan, batch, sampling), batch, emit)
            return
        self.stepper = self._stepper(plan, batch)
        if plan.prefix:
            self.prefixes = self.prefixes or Prefixes(plan.prefix)
            self.stepper.reader = functools.partial(self.prefixes.read, batch, emit)
        if plan.speculation:
            self.drafting.turn(plan, self.stepper, batch, sampling, self.length, emit)
        else:
            decode(self.stepper, batch, sampling, emit)

    def whole(self, plan: Plan, workload: Any) -> Batch:
        """One cache length serves all batches: a compiled step then meets as few shapes as can be."""
        whole = self.requests = super().whole(plan, workload)
        guesses = plan.speculation["guesses"] + 1 if plan.speculation else 0
        if plan.compile and guesses:  # its steps are as wide near the end as anywhere
            check_context(whole.prompts, workload.max_new_tokens + guesses - 1, self.architecture.context)
        self.length = -(-(whole.width + workload.max_new_tokens + guesses) // CACHE_STEP) * CACHE_STEP
        return whole

    @torch.inference_mode()
    def _warm_one(self, plan: Plan, batch: Batch, workload: Any, emit: Emit) -> None:
        known = self.shape(plan, batch) in self.warmed
        super()._warm_one(plan, batch, workload, emit)
        if known:
            return
        if plan.speculation and getattr(self.stepper, "fixed_width", False):
            emit(Phase(time.perf_counter(), "compile"))  # a step that checks guesses has another width
            self.drafting.rehearse(plan, self.stepper)
        if again := self._again(plan, batch, self.sampling(workload)):
            emit(Phase(time.perf_counter(), "profile"))
            self.counted[self.shape(plan, batch)] = launches(again, self.model.device)
            if plan.graph and plan.sdpa:  # a replay runs kernels without the operators that launched them
                body = self._graph(plan, batch, self.sampling(workload)).step.body
                seen = launches(body, self.model.device)["attention"]
                self.counted[self.shape(plan, batch)]["attention"] = seen

    def _again(self, plan: Plan, batch: Batch, sampling: Sampling) -> Callable[[], Any] | None:
        """One more step after a warm-up, of the width that the loop uses; what it writes is thrown away."""
        if plan.graph:
            return self._graph(plan, batch, sampling).replay
        if plan.continuous or not isinstance(self.stepper, Stepper):
            return None
        width = plan.speculation["guesses"] + 1 if plan.speculation else 1
        ids = torch.zeros(len(batch.prompts), width, dtype=torch.long, device=self.model.device)
        return functools.partial(self.stepper.step, ids)

    def _graph(self, plan: Plan, batch: Batch, sampling: Sampling) -> Any:
        """Kept between turns: recording costs time and memory. It holds the attention that it was recorded with."""
        if self.native:
            return self.native.runner(self.model, len(batch.prompts), self.length, sampling)
        key = (len(batch.prompts), self.length, sampling, plan.sdpa)
        if key not in self.graphs:
            cache = self._cache(len(batch.prompts), whole=True)
            self.graphs[key] = graph_step(self.model, cache, len(batch.prompts), sampling)
        return self.graphs[key]

    def change(self, plan: Plan, model: Any) -> Any:
        """Rewrite the loaded model as the plan asks."""
        if plan.merged:
            merge_projections(model)
        if plan.kernels:
            fuse_kernels(model)
        if plan.native:
            self.native = natively(plan)(model, plan)
        return model

    def shape(self, plan: Plan, batch: Batch) -> tuple:
        if plan.continuous:
            return ("continuous", *self._size(plan))
        length = self.length if plan.cache == "static" else 0
        own = self.native.shape(batch) if self.native else ()
        return (*super().shape(plan, batch), length, plan.graph, *own)

    def _size(self, plan: Plan) -> tuple:
        return (repr(plan.continuous), len(self.requests.requests), self.requests.tokens)

    def _engine(self, plan: Plan) -> Engine:
        """Kept between turns, with its slots; one for another size of requests takes its place."""
        size = self._size(plan)
        if size not in self.engines:
            self.engines.clear()
            self.stepper = None  # its memory is free before another one's is taken
            kept = self.native.itemsize if self.native else self.model.dtype.itemsize
            kv_bytes = self.architecture.kv_bytes_per_token(kept)
            self.engines[size] = engine(self.model, self.requests, plan.continuous, kv_bytes, self.native)
        self.stepper = self.engines[size]
        return self.engines[size]

    def _stepper(self, plan: Plan, batch: Batch) -> Stepper:
        if self.native:
            return self.native.stepper(self.model, self.length, batch.pad)
        if plan.cache == "off":
            return Recompute(self.model, batch.pad)
        if plan.window:
            return Windowed(self.model, batch.pad, **plan.window)
        if plan.cache == "dynamic":
            return Growing(self.model, batch.pad, growing_cache(self.model.config, plan))
        whole = bool(plan.speculation or plan.compile or plan.kernels)
        cache = self._cache(len(batch.pad), whole)
        return Preallocated(self.model, batch.pad, cache, self._compiled(plan))

    def _cache(self, rows: int, whole: bool) -> StaticCache:
        """Kept between turns: a compiled step may only meet the cache that it was compiled with.

        A `whole` cache keeps what leaves a model's sliding window, so that tokens can be taken back, and its
        position is on the device, so that a compiled step does not compile again for every token.
        """
        key = (rows, self.length, whole)
        if key not in self.caches:
            static = StaticCache(config=self.model.config, max_cache_len=self.length)
            self.caches[key] = keep_all(self.model.config, self.length) if whole else static
        return self.caches[key]

    def _compiled(self, plan: Plan) -> Any:
        if plan.compile and self.compiled is None:
            self.compiled = compile_step(self.model, plan)
        return self.compiled if plan.compile else None

    def memory(self) -> dict[str, int | None]:
        kv = self.stepper.kv_bytes() + self.drafting.kv_bytes() if self.stepper else None
        return {**super().memory(), "kv": kv + self.prefixes.bytes if kv is not None and self.prefixes else kv}

    def effective(self) -> dict[str, Any]:
        cache = self.stepper.cache_name() if self.stepper else None
        continuous = self.stepper.facts() if isinstance(self.stepper, Engine) else None
        return {
            **super().effective(),
            "continuous": continuous,
            "cache": cache,
            **self._fused(),
            **self._kept(),
            **self.drafting.effective(),
        }

    def weights_bytes(self) -> int:
        return super().weights_bytes() + (self.native.weights.bytes() if self.native else 0)

    def reader(self, plan: Plan, length: int) -> Stepper:
        return self.native.stepper(self.model, length) if self.native else super().reader(plan, length)

    def _fused(self) -> dict[str, Any]:
        """What was fused, counted in the modules, and what one step of the last batch's shape launches."""
        recorded = [graph for graph in self.graphs.values() if graph.graph and graph.launched]
        counted = self.counted.get(self.ran)
        return {
            "native": getattr(self.stepper, "native", False),
            "built_by": self.native and self.native.built_by,
            "merged": merged(self.model),
            "kernels": kernels(self.model),
            "graph": len(recorded) + getattr(self.native, "recordings", 0),
            "launches": counted,
            **({"compiled": compiled_as(counted["pieces"])} if counted else {}),
            "compile_mode": mode_of(self.compiled),
            "sdpa": counted and counted["attention"],
        }

    def _kept(self) -> dict[str, Any]:
        """How keys and values were kept in the last turn, read from the cache itself."""
        packed = self._packed() if self.native else {}
        if not isinstance(self.stepper, Stepper):
            return packed
        if self.native:
            return {"kv": self.native.footprint(self.architecture), **packed}
        cache = getattr(self.stepper, "cache", None)
        return {
            "kv": footprint(cache, self.architecture, self.stepper.length),
            "kv_bits": bits(cache),
            "kv_group": group(cache),
            "window": window(cache),
            "sinks": sinks(cache),
            "offload": offloaded(cache),
            "prefix": self.prefixes.facts() if self.prefixes else None,
        }

    def _packed(self) -> dict[str, Any]:
        """How the native step keeps its weights, and what the newest step multiplied them with."""
        decoder = getattr(getattr(self.stepper, "slots", self.stepper), "decoder", None)
        packed = self.native.quantization()
        found = {"stored": self.native.stored(), **({"quantization": packed} if packed else {})}
        return {**found, "input_bits": getattr(decoder, "inputs", None)}
