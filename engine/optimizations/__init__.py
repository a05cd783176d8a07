"""One optimization a file. The class is its own lesson, limits and effect; the instance is the configuration."""

from typing import Any, ClassVar, Self

from pydantic import Field

from engine.part import Part
from engine.plan import Plan

Way = dict[str, dict[str, Any]]
"""Optimizations by name, with their knobs."""


TRITON = 8.0
"""The lowest compute capability of a GPU that Triton supports (its README)."""
AMPERE = 8.0
"""From here on GPUs multiply bfloat16, and torch has flash attention."""
ASKS_HOST = ("mpt",)
"""Families whose code cuts a tensor by the cache's length, which a step of fixed shapes has on the device only."""
FULL_LENGTH = (
    "The bias by distance (ALiBi) of this model fits a KV cache of just the tokens seen, not one of full length"
)


class Optimization(Part):
    """Base of all optimizations.

    An `always` optimization is in effect in every lane with its defaults (a number format, a cache kind);
    the others are off until a lane lists them. A subclass supports a backend by having the method
    `on_<backend>(plan)`, which edits the plan; only the backend acts on it.
    """

    always: ClassVar[bool] = False
    lossless: ClassVar[bool] = True
    """Greedy tokens in float32 are identical with and without it; a contract test holds it to that."""
    kept: ClassVar[str] = ""
    """What becomes of the text, where `lossless` says it too shortly."""
    shares: ClassVar[bool] = False
    """Whether several requests share its steps."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Names of what must be on as well."""
    moves: ClassVar[dict[str, str]] = {}
    """The claim: which metric goes `up` or `down`."""
    reasons: ClassVar[dict[str, str]] = {}
    """Likely causes, by the verdict's word (`faster`, `slower`, `same`), as clauses after "likely because"."""

    def supports(self, backend: str) -> bool:
        return hasattr(self, f"on_{backend}")

    def apply(self, plan: Plan) -> None:
        """Edit the plan for its backend."""
        getattr(self, f"on_{plan.backend}")(plan)

    def limits(self, machine: Any, model: Any = None) -> str | None:
        """Like `unavailable`, for what depends on the knobs: a sentence if these settings cannot run here."""
        return None

    def settle(self, plan: Plan) -> str | None:
        """Called when every optimization has edited the plan: a sentence if this one cannot live with the others."""
        return None

    def ways(self, device: str) -> tuple[Way, ...]:
        """What may take its place on this device, cpu or cuda, the best first: the first that can run here does."""
        return ()

    def models(self) -> tuple[str, ...]:
        """The names of further models that this loads."""
        return ()

    def because(self, other: Self | None, word: str) -> str | None:
        """A likely cause for a lane with this being `word` than one with `other` (None: switched off there).

        The default speaks only of on against off; two settings of one optimization are compared by overriding it.
        """
        return self.reasons.get(word) if other is None else None

    def expected_loss(self) -> tuple[float, float] | None:
        """What a lossy optimization may cost with these knobs; None for a lossless one.

        The largest mean KL divergence (nats) and the smallest top-1 agreement against float32, on the embedded
        model and a page of English: measured, then widened. A contract test holds it to that.
        """
        return None

    def exact(self) -> Self | None:
        """What takes its place in a lane that loses nothing: itself, or None where only its absence will do."""
        return self if self.lossless else None

    def badge(self) -> str:
        """What a lane shows while this is on."""
        return self.title


class Speculation(Optimization):
    """Base of the kinds of guessing: several tokens are proposed, and one step of the model checks all of them."""

    group: ClassVar[str] = "speculation"
    moves: ClassVar[dict[str, str]] = {"tpot_ms": "down"}

    guesses: int = Field(5, ge=1, le=16, title="Guesses", description="Tokens proposed in one step (draft length).")
    adaptive: bool = Field(
        False,
        title="Adaptive",
        description="Guess two more tokens after a step in which all were right, one fewer after a wrong one.",
    )

    kept: ClassVar[str] = (
        "Greedy, the text stays the same. At a temperature above 0 its probabilities stay, though not the text itself."
    )

    def drafts(self) -> str:
        """How many guesses a badge names: "5", or "5 adaptive" where that is the most."""
        return f"{self.guesses} adaptive" if self.adaptive else str(self.guesses)

    def guess(self, plan: Plan, **how: Any) -> None:
        """Put this kind of guessing into the plan, with what else it needs to know."""
        plan.speculation = {"kind": self.name(), "guesses": self.guesses, "adaptive": self.adaptive, **how}
        plan.expected |= {
            "speculation": self.name(),
            "speculation.guesses": self.guesses,
            "speculation.schedule": "adaptive" if self.adaptive else "constant",
        }

    def settle(self, plan: Plan) -> str | None:
        if plan.speculation["kind"] != self.name():
            return f"One step has room for one kind of guessing: keep {self.title.lower()}, or the other one."
        return next((sentence for clash, sentence in self._clashes(plan) if clash), None)

    def _clashes(self, plan: Plan) -> tuple[tuple[bool, str], ...]:
        name = self.title
        return (
            (plan.batch > 1, f"{name} checks the guesses of one request at a time: switch batching off, or {name}."),
            (bool(plan.continuous), f"{name} guesses for one request at a time: switch continuous batching off."),
            (plan.tensor_parallel > 1, f"{name} needs the whole model in one process: set tensor parallelism to 1."),
            (plan.graph, f"{name} reads several tokens in a step, a captured step one: switch the CUDA graph off."),
            (
                plan.cache == "off",
                f"{name} takes wrong guesses back out of the KV cache: set the KV cache to dynamic or static.",
            ),
            (
                bool(plan.window or plan.kv_bits or plan.offload),
                f"{name} takes wrong guesses back out of the KV cache, which a windowed, quantized or offloaded one "
                "does not allow: keep all keys and values as they are.",
            ),
            (
                plan.backend == "generate" and plan.cache == "static",
                "transformers' generate cannot take guesses back from a static cache: "
                "set the KV cache to dynamic, or use the Pitlane loop.",
            ),
        )


class WeightQuantization(Optimization):
    """Base of the libraries that keep weights in fewer bits. Subclasses have the knob `kind`."""

    group: ClassVar[str] = "quantization"
    lossless: ClassVar[bool] = False
    moves: ClassVar[dict[str, str]] = {"weights_bytes": "down"}
    package: ClassVar[str]
    """The library, by the name under which it is installed."""

    @classmethod
    def unavailable(cls, machine: Any, model: Any = None) -> str | None:
        if not machine.packages.get(cls.package):
            return f"The {cls.package} package is not installed: pip install {cls.package}."
        if model is not None and model.quantized:
            return f"The weights of this model come quantized already ({model.quantized}): choose its original."
        if model is not None and model.experts:
            return "The experts of this model are blocks that would stay unquantized: choose a model without experts."
        return None

    def claim(self, plan: Plan, **knobs: Any) -> None:
        """Put this quantization into the plan, unless another library has its own there already."""
        if plan.quantization is None:
            plan.quantization = {"library": self.package, "kind": self.kind, **knobs}
            plan.expected["quantization"] = self.kind

    def settle(self, plan: Plan) -> str | None:
        if plan.quantization["library"] != self.package:
            return "Weights can be quantized once: keep bitsandbytes or torchao, and switch the other one off."
        if plan.tensor_parallel > 1:
            return "Quantized layers cannot be cut into shares: switch tensor parallelism off, or the quantization."
        return None

    def badge(self) -> str:
        return self.kind
