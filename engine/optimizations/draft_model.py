"""Speculative decoding with a second model that guesses."""

from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

from pydantic import Field

from engine.models.architecture import odd_width
from engine.models.catalogue import MODELS
from engine.models.drafts import TRAINED, trained
from engine.models.resolve import RANDOM
from engine.optimizations import Speculation
from engine.plan import Plan
from engine.refusal import Refusal

SELF = "self"
QUANTIZED = ("int8", "nf4")
PACKED = ("int8", "int4")
"""What the native step packs the model's own weights in, beside those that it steps with."""
KEPT = "int8"
"""What the file of a trained draft holds: packed so, its numbers are those of the file, in a quarter of the bytes."""
INPUTS = 16
"""Bits that what comes in is rounded to. With 8 of them 3.2 of four guesses became text, in 96 % of the time."""
AUTO = "int8"
"""Of four guesses for the embedded model 3.8 became text with it (five kinds of text), and with int4 2.6."""


class DraftModel(Speculation):
    """Let a smaller model guess the next tokens, and the large one check all guesses in one step.

    A step of a large model reads all its weights, whether for one token or for six, so checking is cheap. The
    small model guesses quickly; the large one keeps what it would have written, and text and probabilities stay
    its own. It pays where the draft is several times cheaper and mostly right: a model of the same family, or the
    same weights in fewer bits. It costs the draft's memory, and time in every step where guesses are wrong. Both
    must share a tokenizer. Sources: Leviathan et al. 2023, arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318.
    """

    title: ClassVar[str] = "Draft model"
    moves: ClassVar[dict[str, str]] = {"tpot_ms": "down", "weights_bytes": "up"}
    reasons: ClassVar[dict[str, str]] = {
        "faster": "the draft is cheap, and right often enough to take several tokens a step",
        "slower": "the draft's own steps cost more than its right guesses save",
        "same": "what the draft's right guesses saved, its own steps cost again",
    }

    model: str = Field(
        "",
        max_length=300,
        pattern=r"^[^\x00-\x1f\x7f]*$",
        title="Draft",
        description="A model with the same tokenizer; self: the model's own weights in fewer bits; trained: the "
        "small draft that was trained for this model, where there is one; empty: the catalogue's draft for this "
        "model, or self where it has none.",
    )
    format: Literal["auto", "float32", "bfloat16", "float16", "int8", "nf4", "int4"] = Field(
        "auto",
        title="Draft format",
        description="How the draft's weights are stored; auto: as the model's own, for self in half as many bits "
        "(float32: bfloat16, 16 bits: nf4). Beside the native step self is packed once more, in int8 or int4, and "
        "shares the model's cache; auto: int8, whose guesses are nearly all right, and int4 beside int8. A trained "
        "draft is packed in int8 there, as its file holds it.",
    )

    def models(self) -> tuple[str, ...]:
        chosen = self.model.strip()
        return () if chosen in ("", SELF, TRAINED) else (chosen,)

    def on_transformers(self, plan: Plan) -> None:
        chosen = self.model.strip() or partner(plan.model)
        own = chosen in (SELF, plan.model)
        if chosen == TRAINED:
            self._trained(plan)
            return
        kind = self.format if self.format != "auto" else _fewer(plan) if own else _same(plan)
        plan.draft = {"model": plan.model if own else chosen, **_stored(plan, kind)}
        plan.expected["draft_format"] = kind
        self.guess(plan, draft=plan.draft["model"])
        plan.expected["speculation.draft"] = SELF if own else chosen

    on_generate = on_transformers

    def _trained(self, plan: Plan) -> None:
        """Its shape goes into the plan, so that what it costs can be told before it is loaded."""
        try:
            found = trained(plan.model)
        except Refusal:  # settle says why
            shape = {}
        else:
            shape = {"layers": len(found.layers), "vocabulary": found.vocabulary}
        kind = plan.dtype if self.format in ("auto", KEPT) else self.format
        plan.draft = {"model": TRAINED, "dtype": kind, "quantization": None, **shape}
        plan.expected["draft_format"] = kind
        self.guess(plan, draft=TRAINED)
        plan.expected["speculation.draft"] = TRAINED

    def settle(self, plan: Plan) -> str | None:
        if sentence := super().settle(plan):
            return sentence
        if plan.draft["model"] == TRAINED:
            if sentence := self._untrained(plan):
                return sentence
            if plan.native:
                plan.draft["packed"], plan.expected["draft_format"] = {"kind": KEPT, "inputs": INPUTS}, KEPT
                return None
        own = plan.draft["model"] == plan.model
        if plan.native and own:
            return self._pack(plan)
        kind = plan.expected["draft_format"]
        if kind == "int4":
            return (
                "Only the native step packs a draft in int4, of the model's own weights: choose nf4, or switch the "
                "native step on."
            )
        if kind in QUANTIZED and not find_spec("bitsandbytes"):
            return f"A draft in {kind} needs the bitsandbytes package: pip install bitsandbytes."
        if kind == "float16" and plan.device == "cpu":
            return "float16 has no fast matrix product on a CPU: choose bfloat16 or nf4 for the draft format."
        if kind == "nf4" and plan.device == "cpu" and own and (odd := odd_width(plan.shape)):
            return f"On a CPU nf4 needs layers in steps of 64 and this model has one of {odd}: choose an int8 draft."
        if own and kind == _same(plan):
            return (
                f"The model's own weights in {kind} are as slow as the model itself: "
                "choose a draft format with fewer bits, or another draft."
            )
        if plan.backend == "generate" and plan.shape and plan.shape.sliding and _miscounts():
            return (
                "transformers before 5.24 miscounts a sliding window while a draft guesses: update transformers, "
                "or choose the Pitlane loop."
            )
        if kind == "int8" and plan.compile:
            return "LLM.int8 cannot be compiled: choose nf4 for the draft format, or switch the compiled step off."
        return None

    def _pack(self, plan: Plan) -> str | None:
        """The model's own weights beside its native step, in fewer bits than that has; or why not."""
        held = (plan.packed or {}).get("kind")
        kind = self.format if self.format != "auto" else AUTO if held is None else "int4"
        if kind not in PACKED:
            return (
                f"Beside the native step the model's own weights are packed in int8 or int4, not {kind}: "
                "choose one of them for the draft format, or auto."
            )
        if held == "int4" or held == kind:
            return (
                f"The native step has this model's weights in {held} already, so that in {kind} they are no quicker "
                "draft: choose prompt lookup, or another draft."
            )
        plan.draft = {
            "model": plan.model, "dtype": plan.dtype, "quantization": None,
            "packed": {"kind": kind, "inputs": INPUTS},
        }  # fmt: skip
        plan.expected["draft_format"] = kind
        return None

    def _untrained(self, plan: Plan) -> str | None:
        """Why there can be no trained draft in this lane."""
        if plan.backend == "generate":
            return "transformers' generate takes whole models as drafts: use the Pitlane loop for a trained draft."
        if plan.native and self.format not in ("auto", KEPT):
            return (
                f"The native step packs a trained draft in {KEPT}, as its file holds it: set the draft format to auto."
            )
        if not plan.native and self.format in (*QUANTIZED, *PACKED):
            return "A trained draft is small as it is: choose a draft format that is not quantized, or auto."
        try:
            trained(plan.model)
        except Refusal as refusal:
            return str(refusal)
        return None

    def badge(self) -> str:
        return f"{self.model or 'model'} drafts {self.drafts()}"


def partner(model: str) -> str:
    """The catalogue's draft for a model; with random weights where the model has them; `self` where there is none."""
    prefix = RANDOM if model.startswith(RANDOM) else ""
    name = model.removeprefix(RANDOM)
    known = MODELS.get(name) or next((entry for entry in MODELS.values() if entry.repo == name), None)
    return prefix + known.draft if known and known.draft else SELF


def _same(plan: Plan) -> str:
    return plan.quantization["kind"] if plan.quantization else plan.dtype


def _stored(plan: Plan, kind: str) -> dict[str, Any]:
    if kind == _same(plan):
        return {"dtype": plan.dtype, "quantization": plan.quantization}
    if kind in QUANTIZED:
        return {"dtype": plan.dtype, "quantization": {"library": "bitsandbytes", "kind": kind}}
    return {"dtype": kind, "quantization": None}


def _fewer(plan: Plan) -> str:
    return "bfloat16" if plan.dtype == "float32" and not plan.quantization else "nf4"


def _miscounts() -> bool:
    """With 5.17 assisted generation breaks off in Gemma 3 (a mask of 16 places for 17 keys); with 5.24 it does not."""
    return tuple(int(part) for part in version("transformers").split(".")[:2]) < (5, 24)
