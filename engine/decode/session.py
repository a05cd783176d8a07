"""Sessions over a loaded HF model: loading, checking, warming up, and taking requests as they come."""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers.generation
import transformers.modeling_utils
import transformers.models.auto.modeling_auto
import transformers.tokenization_utils_tokenizers  # noqa: F401  (imported while other lanes load)

from engine.backends import Emit, Session
from engine.decode.arrivals import Arrivals
from engine.decode.attention import allowed
from engine.decode.compiled import compilations, compiled_as
from engine.decode.drafting import Drafting
from engine.decode.prompts import Batch, batches, check_context, encode, everything, pick
from engine.decode.reading import read, reader
from engine.decode.sampling import Sampling, plainly
from engine.decode.stepper import Stepper
from engine.decode.texts import Texts
from engine.decode.warmup import account, warm_up
from engine.event import Admitted, Phase, Request
from engine.models import load
from engine.models.architecture import architecture
from engine.models.fetch import fetch, revision
from engine.models.header import read_once
from engine.models.resolve import Source, resolve
from engine.plan import Plan

WARMUP_TOKENS = 4
ALL_THREADS = torch.get_num_threads()


class Loaded(Session):
    """A model with its tokenizer. Subclasses implement `turn` for one batch, and may take over `serve`."""

    def __init__(self) -> None:
        self.model: Any = None
        self.tokenizer: Any = None
        self.warmed: set[tuple] = set()
        self.warmups: list[list[float]] = []
        self.before = 0
        self.drafting = Drafting()

    def prepare(self, plan: Plan, workload: Any, emit: Emit) -> None:
        self.load(plan, workload, emit)
        self.warm(plan, workload, emit)

    def load(self, plan: Plan, workload: Any, emit: Emit) -> None:
        torch.set_num_threads(plan.threads or ALL_THREADS)
        if self.model is None:
            self._load(plan, workload, emit)

    @torch.inference_mode()
    def read(self, plan: Plan, beginning: Sequence[int], rest: Sequence[int]) -> Iterator[torch.Tensor]:
        """Logits that predict each token of `rest` after `beginning`: float32 [positions, vocabulary], in pieces."""
        with allowed(plan):
            yield from read(self.reader(plan, len(beginning) + len(rest)), plan, beginning, rest)

    def reader(self, plan: Plan, length: int) -> Stepper:
        """What reads a given text of so many tokens with the losses of this plan."""
        return reader(self.model, plan)

    def run(self, plan: Plan, workload: Any, emit: Emit) -> None:
        whole = self.begin(plan, workload)
        with allowed(plan):
            self.serve(plan, whole, workload, emit)

    def begin(self, plan: Plan, workload: Any) -> Batch:
        whole = self.whole(plan, workload)
        self.say = Texts(self.tokenizer, dict(zip(whole.requests, whole.lengths, strict=True))).say
        self.before = compilations()
        self.drafting.start()
        self.begun = (whole, self.sampling(workload))
        return whole

    def share(self, plan: Plan, requests: Sequence[int], arrived: Sequence[float] | None, emit: Emit) -> None:
        whole, sampling = self.begun
        batch = pick(whole, requests, tuple(arrived) if arrived else None)
        for place, came in enumerate(arrived or ()):
            emit(Request(came, batch.requests[place], len(batch.prompts[place])))
            emit(Admitted(time.perf_counter(), batch.requests[place]))
        with allowed(plan):
            self.turn(plan, batch, sampling, emit)

    def serve(self, plan: Plan, whole: Batch, workload: Any, emit: Emit) -> None:
        """All requests: in turn, a batch at a time; or whoever is waiting whenever the engine is free."""
        sampling = self.sampling(workload)
        if not workload.open_loop:
            for batch in batches(whole, plan.batch):
                self.turn(plan, batch, sampling, emit)
            return
        arrivals = Arrivals(whole, workload, emit)
        while arrivals.left:
            arrivals.wait()
            self.turn(plan, arrivals.admit(plan.batch), sampling, arrivals.emit)

    def turn(self, plan: Plan, batch: Batch, sampling: Sampling, emit: Emit) -> None:
        """Generate for one batch, emitting its Request and Step events."""
        raise AttributeError(f"{type(self).__name__} has no turn")

    def warm(self, plan: Plan, workload: Any, emit: Emit) -> None:
        """A few silent tokens for every batch shape that has not run yet, so that turns start alike."""
        self.warmups = []
        for batch in self._batches(plan, workload):
            if self.shape(plan, batch) not in self.warmed:
                self._warm(plan, batch, workload, emit)

    def rewarm(self, plan: Plan, workload: Any, emit: Emit) -> None:
        if not self.warmups:
            self._warm(plan, self._batches(plan, workload)[0], workload, emit)

    def _batches(self, plan: Plan, workload: Any) -> list[Batch]:
        return batches(self.whole(plan, workload), plan.batch_of(workload.count))

    def _warm(self, plan: Plan, batch: Batch, workload: Any, emit: Emit) -> None:
        with allowed(plan):
            self._warm_one(plan, batch, workload, emit)
        self.warmed.add(self.shape(plan, batch))

    def shape(self, plan: Plan, batch: Batch) -> tuple:
        """What decides whether a batch needs a warm-up of its own."""
        kept = (plan.cache, repr(plan.window), repr(plan.kv_bits), plan.offload, bool(plan.prefix))
        return (len(batch.prompts), batch.ragged, plan.sdpa, repr(plan.speculation), *kept)

    def _warm_one(self, plan: Plan, batch: Batch, workload: Any, emit: Emit) -> None:
        few = replace(batch, lengths=tuple(min(WARMUP_TOKENS, length) for length in batch.lengths), arrived=None)
        turn = functools.partial(self.turn, plan, few, self.sampling(workload), _silent)
        known = self.shape(plan, batch) in self.warmed
        phases = [] if known else [name for name, on in (("compile", plan.compiles), ("capture", plan.graph)) if on]
        for phase in phases:
            emit(Phase(time.perf_counter(), phase))
            turn()
        emit(Phase(time.perf_counter(), "warmup"))
        self.warmups.append(warm_up(turn, together=plan.tensor_parallel > 1))

    def whole(self, plan: Plan, workload: Any) -> Batch:
        """All requests of the workload. Raises Refusal if one does not fit into the context."""
        return everything(self.check(workload), workload)

    def check(self, workload: Any) -> list[tuple[int, ...]]:
        """Token ids of all prompts. Raises Refusal if one does not fit into the context."""
        vocabulary = min(len(self.tokenizer), self.architecture.vocabulary or 2**31)
        encoded = encode(self.tokenizer, workload.prompts, workload.chat, vocabulary, workload.system)
        check_context(encoded, workload.max_new_tokens, self.architecture.context)
        check_context(encoded, workload.max_new_tokens, self.drafting.context)
        return encoded

    def sampling(self, workload: Any) -> Sampling:
        ends = self.model.generation_config.eos_token_id
        stop = frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])
        return Sampling(stop, workload.fixed_length, workload.temperature, workload.seed)

    def _load(self, plan: Plan, workload: Any, emit: Emit) -> None:
        def phase(name: str) -> None:
            emit(Phase(time.perf_counter(), name))

        def progress(done: float, total: float, unit: str) -> None:
            emit(Phase(time.perf_counter(), "fetch", done, total, unit))

        phase("fetch")
        source = resolve(plan.model)
        folder = fetch(source, progress)
        phase("load")
        with read_once(folder):
            self._open(plan, workload, source, folder, phase, progress)

    def _open(
        self, plan: Plan, workload: Any, source: Source, folder: Path, phase: Callable[[str], None], progress: Callable
    ) -> None:
        """Load what lies in a folder, and check before the weights that the lane can run with it."""
        self.revision = revision(folder)
        self.architecture = architecture(load.read_config(folder))
        if checked := self.recheck(self.architecture):
            vars(plan).update(vars(checked))
        self.tokenizer = load.load_tokenizer(folder)
        self.drafting.find(plan, source, folder, self.tokenizer, progress)
        self.check(workload)
        whole = load.load_model(source, folder, plan, phase)
        whole.generation_config = plainly(whole.generation_config)
        self.drafting.load(plan, phase, whole)
        self.model = self.change(plan, whole)
        self.weights = self.weights_bytes() + self.drafting.weights_bytes()

    def weights_bytes(self) -> int:
        """Bytes of the model's weights as they lie in memory."""
        return load.weights_bytes(self.model)

    def change(self, plan: Plan, model: Any) -> Any:
        """Rewrite the loaded model as the plan asks."""
        return model

    def memory(self) -> dict[str, int | None]:
        return {"weights": getattr(self, "weights", None)}

    def effective(self) -> dict[str, Any]:
        made = compilations()
        found = {"threads": torch.get_num_threads(), "compiled": compiled_as(), "graphs": made}
        found |= {"recompiles": made - self.before if self.before else 0, "revision": self.revision}
        found["warmup"] = account(self.warmups)
        return {**load.effective(self.model), **found}


def _silent(event: Any) -> None:
    """Warm-up tokens are not reported."""
