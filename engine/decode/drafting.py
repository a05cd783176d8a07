"""Drafting: what a session keeps for its drafts from turn to turn: the second model, its cache, compiled steps."""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from engine.backends import Emit
from engine.decode.coarse import Second, second
from engine.decode.compiled import compile_step
from engine.decode.drafts import Coarse, Draft, EarlyExit, Lookup, SecondModel, Trained
from engine.decode.early_exit import Shallow, first_layers
from engine.decode.native import natively
from engine.decode.prompts import Batch
from engine.decode.sampling import Sampling
from engine.decode.speculate import DraftLength, Tally, Verifier, speculate
from engine.decode.stepper import Growing, Preallocated, Stepper, keep_all
from engine.decode.trained import load as load_trained
from engine.models import drafts, load
from engine.models.architecture import architecture
from engine.models.fetch import fetch
from engine.models.resolve import Source, resolve
from engine.plan import Plan
from engine.refusal import Refusal

OTHER = "Choose a draft of the model's own family, or leave the draft empty."


class Drafting:
    """The drafts of one session. `model` is the second model where there is one; `length` of a cache is in tokens."""

    def __init__(self) -> None:
        self.model: Any = None
        self.context: int | None = None
        self.found: tuple[Source, Path] | None = None
        self.asked = ""
        self.trained: drafts.Trained | None = None
        self.native: Any = None
        self.own: Second | None = None
        self.draft: Draft | None = None
        self.tally = Tally()
        self.kept: dict[tuple, Any] = {}
        self.rounds: tuple[Any, Any] = (None, None)
        self.fed: Any = None

    def find(self, plan: Plan, source: Source, folder: Path, tokenizer: Any, progress: Callable) -> None:
        """Fetch the draft model of a plan, if it has one; `source` and `folder` are the whole model's.

        Raises Refusal, before any weight is loaded, unless both models give every token the same number.
        """
        if not plan.draft:
            return
        if plan.draft["model"] == drafts.TRAINED:
            self.trained = drafts.trained(plan.model)
            return
        if plan.draft.get("packed"):
            return
        if plan.draft["model"] != plan.model:
            source = resolve(plan.draft["model"])
            folder = fetch(source, progress)
        check_draft(plan, source, folder, tokenizer)
        self.context = architecture(load.read_config(folder)).context
        self.found = (source, folder)
        self.asked = "self" if plan.draft["model"] == plan.model else plan.draft["model"]

    def load(self, plan: Plan, phase: Callable[[str], None], whole: Any) -> None:
        """Load the second model that was found, in its own number format; others are made of the `whole` model."""
        if self.found:
            phase("load")
            self.model = load.load_model(*self.found, replace(plan, **plan.draft), phase)
        elif self.trained:
            phase("load")
            # a native step reads the whole model's vectors of tokens as they are, so it computes in their format
            dtype = whole.dtype if plan.native else getattr(torch, plan.draft["dtype"])
            self.model = load_trained(self.trained.path, whole, dtype)
            if plan.native:
                self.native = natively(plan)(self.model, replace(plan, packed=plan.draft.get("packed")))
                self.model.get_input_embeddings().give_back()
        elif plan.draft:
            phase("quantize")
            self.own = second(whole, plan)
            phase("load")

    def start(self) -> None:
        """A run begins: count from nothing."""
        self.tally = Tally()

    def weights_bytes(self) -> int:
        if self.own:
            return self.own.bytes()
        packed = sum(matrix.bytes() for matrix in self.native.weights.matrices()) if self.native else 0
        return packed + load.weights_bytes(self.model) if self.model is not None else 0

    def format(self) -> str | None:
        """The number format that the second model was loaded or packed in, read from it; None without one."""
        if self.model is None:
            return self.own.kind if self.own else None
        if self.native:
            return self.native.stored()
        found = load.effective(self.model)
        return found["quantization"]["kind"] if found["quantization"] else found["dtype"]

    def turn(self, plan: Plan, stepper: Stepper, batch: Batch, sampling: Sampling, length: int, emit: Emit) -> None:
        """Decode one request with the plan's kind of guessing, beside the `stepper` of the whole model."""
        knobs, generator = plan.speculation, sampling.generator(stepper.model.device)
        self.draft, self.fed = KINDS[knobs["kind"]](self, plan, stepper, sampling, generator, length), None
        if plan.native and plan.device == "cuda" and self._rounds(plan, stepper, batch, sampling, emit):
            return
        verifier = Verifier(stepper, sampling, generator, knobs["guesses"])
        speculate(verifier, self.draft, DraftLength(knobs["guesses"], knobs["adaptive"]), batch, emit, self.tally)

    def _rounds(self, plan: Plan, stepper: Any, batch: Batch, sampling: Sampling, emit: Emit) -> bool:
        """Decode by rounds that feed themselves, where this kind of guessing can; whether it did."""
        from engine.decode.gpu_rounds import rounds_decode, rounds_of

        key = (stepper.steps, sampling, repr(plan.speculation))
        if self.rounds[0] != key:
            self.rounds = (None, None)  # the recording of another cache goes before one is made
            self.rounds = (key, rounds_of(plan, stepper, self.own, sampling))
        self.fed = self.rounds[1]
        if self.fed:
            rounds_decode(self.fed, stepper, batch, emit, self.tally)
        return self.fed is not None

    def rehearse(self, plan: Plan, stepper: Stepper) -> None:
        """Run both widths that a compiled step will meet while guesses are checked, so that no turn compiles."""
        for width in (1, plan.speculation["guesses"] + 1):
            stepper.step(torch.zeros((1, width), dtype=torch.long, device=stepper.model.device))
            stepper.rollback(width)

    def kv_bytes(self) -> int:
        """Bytes of keys and values beside those of the whole model."""
        return self.draft.kv_bytes() if self.draft else 0

    def effective(self) -> dict[str, Any]:
        """What really guessed in the last turns, and how often; nothing where no draft was asked."""
        ran = None
        if self.draft and self.tally.asked:
            ran = self.named(self.model) | self.draft.facts() | (self.fed.facts() if self.fed else {})
            ran |= vars(self.tally)
        return {"speculation": ran, "draft_format": self.format()}

    def named(self, model: Any) -> dict[str, str]:
        """Which second model this is, by where it was loaded from: as it was asked for, or else its folder's name."""
        if not self.found or model is None:
            return {}
        folder = Path(model.name_or_path)
        return {"draft": self.asked if folder == self.found[1] else folder.name}

    def _lookup(self, plan: Plan, stepper: Stepper, *_: Any) -> Draft:
        return Lookup(plan.speculation["ngram"], stepper.model.device)

    def _second(
        self, plan: Plan, stepper: Stepper, sampling: Sampling, generator: torch.Generator, length: int
    ) -> Draft:
        if self.own:
            return Coarse(self.own.stepper(stepper), sampling, generator, vocabulary(stepper.model))
        if self.native:
            self.native.borrow(stepper)
            own: Stepper = self.native.stepper(self.model, length)
        elif plan.cache == "static":
            cache = self._once(("cache", length), lambda: keep_all(self.model.config, length))
            own = Preallocated(self.model, [0], cache, self._compiled(plan, self.model))
        else:
            own = Growing(self.model, [0], keep_all(self.model.config))
        parts = (own, sampling, generator, vocabulary(stepper.model))
        if not self.trained:
            return SecondModel(*parts)
        facts = {"layers": len(self.trained.layers), "vocabulary": self.trained.vocabulary}
        return Trained(*parts, kept=self.model.kept, facts=facts)

    def _shallow(
        self, plan: Plan, stepper: Stepper, sampling: Sampling, generator: torch.Generator, length: int
    ) -> Draft:
        layers = plan.speculation["layers"]
        cut = self._once(("cut", layers), lambda: first_layers(stepper.model, layers))
        shallow = Shallow(cut, layers, stepper, self._compiled(plan, cut))
        return EarlyExit(shallow, sampling, generator, vocabulary(stepper.model))

    def _compiled(self, plan: Plan, model: Any) -> Any:
        return self._once(("compiled", id(model)), lambda: compile_step(model, plan)) if plan.compile else None

    def _once(self, key: tuple, make: Callable[[], Any]) -> Any:
        """Kept between turns: a compiled step may only meet the cache that it was compiled with."""
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]


KINDS: dict[str, Callable[..., Draft]] = {
    Lookup.kind: Drafting._lookup,
    SecondModel.kind: Drafting._second,
    EarlyExit.kind: Drafting._shallow,
}


def vocabulary(model: Any) -> int:
    """How many tokens the model's logits tell apart."""
    return model.config.get_text_config().vocab_size


def check_draft(plan: Plan, source: Source, folder: Path, tokenizer: Any) -> None:
    """Raises Refusal unless a draft can be loaded, can forget a guess, and cuts text into the same numbers."""
    library = (plan.draft["quantization"] or {}).get("library")
    if library and not find_spec(library):
        raise Refusal(f"The draft needs {library}, which is not installed.", "Choose another draft format.")
    config = load.read_config(folder)
    load.check_config(config, source.name)
    if not architecture(config).keeps_kv:
        raise Refusal(f"{source.name} keeps a running state, from which no guess can be taken back.", OTHER)
    if load.load_tokenizer(folder).get_vocab() != tokenizer.get_vocab():
        raise Refusal(
            f"{source.name} cannot guess for {plan.model}: their tokenizers give the same text other numbers.", OTHER
        )
