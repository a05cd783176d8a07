"""Sessions over a loaded HF model: what both loops share, and Pitlane's own loop."""

import time
from typing import Any

import torch
import torch._dynamo.utils
import torch._inductor.config as inductor
import transformers.generation
import transformers.modeling_utils
import transformers.models.auto.modeling_auto
import transformers.tokenization_utils_tokenizers  # noqa: F401  (imported while other lanes load)
from transformers import StaticCache

from engine.backends import Emit, Session
from engine.decode.loop import Sampling, decode, speculate
from engine.decode.prompts import Batch, batches, check_context, encode
from engine.decode.stepper import Growing, Preallocated, Recompute, Stepper
from engine.decode.texts import Texts
from engine.event import Phase
from engine.models import load
from engine.models.fetch import fetch
from engine.models.resolve import resolve
from engine.plan import Plan

WARMUP_TOKENS = 4
ALL_THREADS = torch.get_num_threads()
CACHE_STEP = 64
"""Static caches are rounded up to this many tokens, so that small changes of length reuse them."""


class Loaded(Session):
    """A model with its tokenizer. Subclasses implement `turn` for one batch."""

    def __init__(self) -> None:
        self.model: Any = None
        self.tokenizer: Any = None
        self.warmed: set[tuple] = set()

    def prepare(self, plan: Plan, workload: Any, emit: Emit) -> None:
        torch.set_num_threads(plan.threads or ALL_THREADS)
        if self.model is None:
            self._load(plan, workload, emit)
        else:
            self.check(workload)
        self.warm(plan, workload, emit)

    def run(self, plan: Plan, workload: Any, emit: Emit) -> None:
        self.say = Texts(self.tokenizer, workload.max_new_tokens).say
        for batch in self.batches(plan, workload):
            self.turn(plan, batch, self.sampling(workload), emit)

    def turn(self, plan: Plan, batch: Batch, sampling: Sampling, emit: Emit) -> None:
        """Generate for one batch, emitting its Request and Step events."""
        raise AttributeError(f"{type(self).__name__} has no turn")

    def warm(self, plan: Plan, workload: Any, emit: Emit) -> None:
        """A few silent tokens for every batch shape that has not run yet, so that turns start alike."""
        for batch in self.batches(plan, workload):
            shape = self.shape(plan, batch, workload)
            if shape not in self.warmed:
                self._warm_one(plan, batch, workload, emit)
                self.warmed.add(shape)

    def shape(self, plan: Plan, batch: Batch, workload: Any) -> tuple:
        return (len(batch.prompts), batch.ragged, plan.cache, repr(plan.speculation))

    def _warm_one(self, plan: Plan, batch: Batch, workload: Any, emit: Emit) -> None:
        few = self.sampling(workload, min(WARMUP_TOKENS, workload.max_new_tokens))
        if plan.compile:
            emit(Phase(time.perf_counter(), "compile"))
            self.turn(plan, batch, few, _silent)
        emit(Phase(time.perf_counter(), "warmup"))
        self.turn(plan, batch, few, _silent)

    def batches(self, plan: Plan, workload: Any) -> list[Batch]:
        return batches(self.check(workload), plan.batch)

    def check(self, workload: Any) -> list[tuple[int, ...]]:
        """Token ids of all prompts. Raises Refusal if one does not fit into the context."""
        vocabulary = min(len(self.tokenizer), self.vocabulary)
        encoded = encode(self.tokenizer, workload.prompts, workload.chat, vocabulary)
        check_context(encoded, workload.max_new_tokens, self.context)
        return encoded

    def sampling(self, workload: Any, new_tokens: int | None = None) -> Sampling:
        ends = self.model.generation_config.eos_token_id
        stop = frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])
        count = new_tokens or workload.max_new_tokens
        return Sampling(count, stop, workload.fixed_length, workload.temperature, workload.seed)

    def _load(self, plan: Plan, workload: Any, emit: Emit) -> None:
        emit(Phase(time.perf_counter(), "fetch"))
        source = resolve(plan.model)

        def progress(done: float, total: float, unit: str) -> None:
            emit(Phase(time.perf_counter(), "fetch", done, total, unit))

        folder = fetch(source, progress)
        emit(Phase(time.perf_counter(), "load"))
        config = load.read_config(folder)
        self.context = load.context_length(config)
        self.vocabulary = (config.get("text_config") or config).get("vocab_size", 2**31)
        self.tokenizer = load.load_tokenizer(folder)
        self.check(workload)
        self.model = load.load_model(source, folder, plan.dtype, plan.device, plan.attention, plan.quantization)
        self.weights = load.weights_bytes(self.model)

    def memory(self) -> dict[str, int | None]:
        return {"weights": getattr(self, "weights", None)}

    def effective(self) -> dict[str, Any]:
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        found = {"threads": torch.get_num_threads(), "compiled": graphs > 0, "graphs": graphs}
        return {**load.effective(self.model), **found}


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

    def batches(self, plan: Plan, workload: Any) -> list[Batch]:
        """One cache length serves all batches: a compiled step then meets as few shapes as can be."""
        made = super().batches(plan, workload)
        guesses = plan.speculation["guesses"] + 1 if plan.speculation else 0
        longest = max(batch.width for batch in made) + workload.max_new_tokens + guesses
        self.length = -(-longest // CACHE_STEP) * CACHE_STEP
        return made

    def shape(self, plan: Plan, batch: Batch, workload: Any) -> tuple:
        length = self.length if plan.cache == "static" else 0
        return (*super().shape(plan, batch, workload), length)

    def _stepper(self, plan: Plan, batch: Batch) -> Stepper:
        pad = [batch.width - len(ids) for ids in batch.prompts]
        if plan.cache == "off":
            return Recompute(self.model, pad)
        if plan.cache == "dynamic":
            return Growing(self.model, pad)
        return Preallocated(self.model, pad, self._cache(len(pad)), self._compiled(plan))

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


def compile_step(model: Any, plan: Plan) -> Any:
    """The forward pass as one compiled graph for fixed shapes.

    On a CPU the weights are frozen into the graph and packed for its products; on CUDA the step becomes a
    CUDA graph. Freezing must be set for the whole process: as an option of one compile it has no effect
    (torch 2.13), since tracing looks at the global setting.
    """
    torch._dynamo.config.cache_size_limit = 64
    mode = None
    if plan.device == "cpu":
        autotune = plan.compile == "max-autotune"
        inductor.freezing = True
        inductor.max_autotune = autotune
        inductor.max_autotune_gemm_backends = "CPP,ATEN" if autotune else "ATEN"
    else:
        mode = "reduce-overhead" if plan.compile == "default" else "max-autotune"
    return torch.compile(model.forward, mode=mode, fullgraph=True, dynamic=False)


def _silent(event: Any) -> None:
    """Warm-up tokens are not reported."""
