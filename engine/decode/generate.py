"""transformers' own generate, timed token by token through a streamer."""

import time
from typing import Any

import torch
from transformers import CompileConfig
from transformers.generation.streamers import BaseStreamer

from engine.backends import Emit
from engine.decode import assisted
from engine.decode.arrivals import Arrivals, InTurn, source
from engine.decode.caches import Offloaded, offloaded
from engine.decode.compiled import mode_of
from engine.decode.footprint import footprint, kv_bytes
from engine.decode.loop import enter, padded
from engine.decode.paged import Pages, pages
from engine.decode.prompts import Batch
from engine.decode.sampling import Sampling
from engine.decode.session import Loaded
from engine.event import Step
from engine.plan import Plan


class _Clock(BaseStreamer):
    """Turns what generate streams into Step events; the first thing it streams is the prompt.

    The `watch` knows how many guesses a step checked.
    """

    def __init__(self, batch: Batch, sampling: Sampling, emit: Emit, watch: assisted.Watch):
        self.batch, self.sampling, self.emit, self.watch = batch, sampling, emit, watch
        self.prompt = True
        self.going = dict.fromkeys(range(len(batch.prompts)), 0)

    def put(self, value: torch.Tensor) -> None:
        if self.prompt:
            self.prompt = False
            return
        now = time.perf_counter()
        ids = value.flatten().tolist()
        rows = list(self.going)
        tokens = (tuple(ids),) if len(self.batch.prompts) == 1 else tuple((ids[row],) for row in rows)
        requests = tuple(self.batch.requests[row] for row in rows)
        if rows:
            self.emit(Step(now, requests, tokens, drafted=self.watch.newest(), accepted=len(tokens[0]) - 1))
        for row, new in zip(rows, tokens, strict=True):
            self._count(row, new)

    def _count(self, row: int, new: tuple[int, ...]) -> None:
        """A row that has its tokens is no longer reported, though generate goes on computing it."""
        self.going[row] += len(new)
        ended = not self.sampling.fixed_length and self.sampling.stop.intersection(new)
        if ended or self.going[row] >= self.batch.lengths[row]:
            del self.going[row]

    def end(self) -> None:
        self.prompt = True


class GenerateSession(Loaded):
    """The reference: model.generate, told what the lane switches on and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: str | None = None
        self.kv: int | None = None
        self.kept: dict[str, Any] = {}
        self.paged: dict[tuple, Pages] = {}
        self.facts: dict[str, Any] | None = None
        self.cuttable = False

    def whole(self, plan: Plan, workload: Any) -> Batch:
        self.requests = super().whole(plan, workload)
        return self.requests

    def serve(self, plan: Plan, whole: Batch, workload: Any, emit: Emit) -> None:
        if plan.continuous:
            self._continuous(plan, source(whole, workload, emit), self.sampling(workload))
        else:
            super().serve(plan, whole, workload, emit)

    def shape(self, plan: Plan, batch: Batch) -> tuple:
        if plan.continuous:
            return ("continuous", repr(plan.continuous), len(self.requests.requests), self.requests.tokens)
        return super().shape(plan, batch)

    @torch.inference_mode()
    def _continuous(self, plan: Plan, source: Arrivals | InTurn, sampling: Sampling) -> None:
        """The library's own continuous batching, with a cache for the workload's requests."""
        size = (*self.shape(plan, self.requests), sampling)
        if size not in self.paged:
            self.paged.clear()
            kv_bytes = self.architecture.kv_bytes_per_token(self.model.dtype.itemsize)
            self.paged[size] = pages(self.model, self.requests, plan.continuous, kv_bytes, sampling)
        ours = self.paged[size]
        ours.run(source)
        self.cache, self.kv, self.facts = "PagedAttentionCache", ours.kv_bytes(), ours.facts()
        self.kept = {}

    def turn(self, plan: Plan, batch: Batch, sampling: Sampling, emit: Emit) -> None:
        if plan.continuous:
            self._continuous(plan, InTurn(batch, emit), sampling)
            return
        self.facts = None
        enter(batch, emit)
        torch.manual_seed(sampling.seed)
        ids = padded(batch, self.model.device)
        mask = torch.tensor([[0] * pad + [1] * (batch.width - pad) for pad in batch.pad])
        out = self.model.generate(
            ids,
            attention_mask=mask.to(ids.device),
            streamer=_Clock(batch, sampling, emit, self.watch),
            return_dict_in_generate=True,
            **self._options(plan, batch.longest, sampling),
        )
        kept = out.past_key_values
        self.cache = type(kept).__name__ if kept is not None else None
        self.kv = kv_bytes(kept)
        tokens = int(kept.get_seq_length()) if kept is not None else 0
        self.kept = {
            "kv": footprint(kept, self.architecture, tokens),
            "offload": offloaded(kept),
        }

    def _options(self, plan: Plan, tokens: int, sampling: Sampling) -> dict[str, Any]:
        options: dict[str, Any] = {
            "max_new_tokens": tokens,
            "min_new_tokens": tokens if sampling.fixed_length else None,
            "use_cache": plan.cache != "off",
            "do_sample": sampling.temperature > 0,
        }
        if sampling.temperature > 0:
            options |= {"temperature": sampling.temperature, "top_k": 0, "top_p": 1.0}
        if plan.cache == "static":
            options["cache_implementation"] = "static"
        if plan.offload:
            options["past_key_values"] = Offloaded(self.model.config)
        if plan.compile:
            mode = "reduce-overhead" if plan.compile == "default" else "max-autotune"
            options["compile_config"] = CompileConfig(mode=mode)
        else:
            options["disable_compile"] = True
        if plan.speculation:
            self.watch.most = plan.speculation["guesses"]
            options |= assisted.options(plan, self.model, self.drafting.model)
        return options

    def memory(self) -> dict[str, int | None]:
        return {**super().memory(), "kv": self.kv}

    def effective(self) -> dict[str, Any]:
        found = {**super().effective(), "continuous": self.facts, "cache": self.cache}
        found["compile_mode"] = mode_of(getattr(self.model, "_compiled_call", None))
        return {**found, **self.kept, **self.assistance()}

    def change(self, plan: Plan, model: Any) -> Any:
        self.watch = assisted.Watch(model)
        return super().change(plan, model)

    def load(self, plan: Plan, workload: Any, emit: Emit) -> None:
        """What exits early is tried once, by whichever lane asks first: it may find the model loaded already."""
        super().load(plan, workload, emit)
        if plan.speculation and plan.speculation.get("layers") and not self.cuttable:
            assisted.check_cut(self.model)
            self.cuttable = True

    def begin(self, plan: Plan, workload: Any) -> Batch:
        self.watch.start()
        return super().begin(plan, workload)

    def assistance(self) -> dict[str, Any]:
        """What guessed inside generate."""
        ran = self.watch.effective()
        return {**self.drafting.effective(), "speculation": ran and {**ran, **self.drafting.named(self.watch.second)}}
