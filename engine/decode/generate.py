"""transformers' own generate, timed token by token through a streamer."""

import time
from typing import Any

import torch
from transformers import CompileConfig
from transformers.generation.streamers import BaseStreamer

from engine.backends import Emit
from engine.decode.loop import Sampling, _padded
from engine.decode.prompts import Batch
from engine.decode.session import Loaded
from engine.decode.stepper import kv_bytes
from engine.event import Request, Step
from engine.plan import Plan


class _Clock(BaseStreamer):
    """Turns what generate streams into Step events; the first thing it streams is the prompt."""

    def __init__(self, batch: Batch, sampling: Sampling, emit: Emit):
        self.batch, self.sampling, self.emit = batch, sampling, emit
        self.prompt = True
        self.going = set(range(len(batch.prompts)))

    def put(self, value: torch.Tensor) -> None:
        if self.prompt:
            self.prompt = False
            return
        now = time.perf_counter()
        rows = sorted(self.going)
        ids = value.flatten().tolist()
        tokens = (tuple(ids),) if len(self.batch.prompts) == 1 else tuple((ids[row],) for row in rows)
        requests = tuple(self.batch.first + row for row in rows)
        self.emit(Step(now, requests, tokens, accepted=len(tokens[0]) - 1))
        if not self.sampling.fixed_length:
            ended = zip(rows, tokens, strict=True)
            self.going -= {row for row, new in ended if self.sampling.stop.intersection(new)}

    def end(self) -> None:
        self.prompt = True


class GenerateSession(Loaded):
    """The reference: model.generate with its defaults, but for what the lane switches on."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: str | None = None
        self.kv: int | None = None

    def turn(self, plan: Plan, batch: Batch, sampling: Sampling, emit: Emit) -> None:
        start = time.perf_counter()
        for request, ids in zip(batch.requests, batch.prompts, strict=True):
            emit(Request(start, request, len(ids)))
        torch.manual_seed(sampling.seed)
        ids = _padded(batch, self.model.device)
        mask = torch.tensor([[0] * (batch.width - len(p)) + [1] * len(p) for p in batch.prompts])
        out = self.model.generate(
            ids,
            attention_mask=mask.to(ids.device),
            streamer=_Clock(batch, sampling, emit),
            return_dict_in_generate=True,
            **self._options(plan, sampling),
        )
        kept = out.past_key_values
        self.cache = type(kept).__name__ if kept is not None else None
        self.kv = kv_bytes(kept) if kept is not None else 0

    def _options(self, plan: Plan, sampling: Sampling) -> dict[str, Any]:
        options: dict[str, Any] = {
            "max_new_tokens": sampling.new_tokens,
            "min_new_tokens": sampling.new_tokens if sampling.fixed_length else None,
            "use_cache": plan.cache != "off",
            "do_sample": sampling.temperature > 0,
        }
        if sampling.temperature > 0:
            options |= {"temperature": sampling.temperature, "top_k": 0, "top_p": 1.0}
        if plan.cache == "static":
            options["cache_implementation"] = "static"
        if plan.compile:
            mode = "reduce-overhead" if plan.compile == "default" else "max-autotune"
            options["compile_config"] = CompileConfig(mode=mode)
        else:
            options["disable_compile"] = True
        if plan.speculation:
            options["prompt_lookup_num_tokens"] = plan.speculation["guesses"]
            options["max_matching_ngram_size"] = plan.speculation["ngram"]
        return options

    def memory(self) -> dict[str, int | None]:
        return {**super().memory(), "kv": self.kv}

    def effective(self) -> dict[str, Any]:
        return {**super().effective(), "cache": self.cache}
