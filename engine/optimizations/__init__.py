"""One optimization a file. The class is its own lesson, limits and effect; the instance is the configuration."""

from typing import Any, ClassVar, Self

from engine.part import Part
from engine.plan import Plan


class Optimization(Part):
    """Base of all optimizations.

    An `always` optimization is in effect in every lane with its defaults (a number format, a cache kind);
    the others are off until a lane lists them. A subclass supports a backend by having the method
    `on_<backend>(plan)`, which edits the plan; only the backend acts on it.
    """

    always: ClassVar[bool] = False
    lossless: ClassVar[bool] = True
    """Greedy tokens in float32 are identical with and without it; a contract test holds it to that."""
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

    def because(self, other: Self | None, word: str) -> str | None:
        """A likely cause for a lane with this being `word` than one with `other` (None: switched off there).

        The default speaks only of on against off; two settings of one optimization are compared by overriding it.
        """
        return self.reasons.get(word) if other is None else None

    def badge(self) -> str:
        """What a lane shows while this is on."""
        return self.title
