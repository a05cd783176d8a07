"""How many processor threads share one operator."""

from typing import Any, ClassVar

from pydantic import Field

from engine.optimizations import Optimization
from engine.plan import Plan

MOST_PER_CORE = 2
"""More threads than two a core only wait for each other."""


class Threads(Optimization):
    """Share each matrix product between processor cores.

    Several cores split the rows of every product between them. Reading the prompt multiplies many tokens with
    each weight, so it is arithmetic and gains with almost every core. Writing multiplies one token: it waits for
    the memory, and where one core alone nearly draws the memory's full bandwidth, a second one gains little.
    More threads than cores, or a neighbour on the same cores, make it slower. No accuracy is lost.
    Source: PyTorch notes, CPU threading and TorchScript inference.
    """

    title: ClassVar[str] = "CPU threads"
    group: ClassVar[str] = "parallelism"
    moves: ClassVar[dict[str, str]] = {"ttft_ms": "down"}
    reasons: ClassVar[dict[str, str]] = {
        "slower": "fewer cores draw less memory bandwidth and do less arithmetic at once",
        "same": "one token at a time waits for the memory, and more cores do not make that faster",
    }

    count: int = Field(
        1, ge=1, le=256, title="Threads", description="Cores that share one operator (intra-op threads)."
    )

    @classmethod
    def unavailable(cls, machine: Any, model: Any = None) -> str | None:
        if machine.cores < 2:
            return "This machine has one core, so there is nothing to share."
        return None

    def limits(self, machine: Any, model: Any = None) -> str | None:
        most = MOST_PER_CORE * machine.cores
        if self.count > most:
            return f"{self.count} threads are too many for {machine.cores} cores: choose at most {most}."
        return None

    def on_transformers(self, plan: Plan) -> None:
        plan.threads = self.count
        plan.expected["threads"] = self.count

    on_generate = on_transformers

    def settle(self, plan: Plan) -> str | None:
        """Every process of a lane has this many threads."""
        processes, most = plan.replicas * plan.tensor_parallel, MOST_PER_CORE * plan.cores
        if self.count * processes > most:
            each = f"{self.count} threads in each of {processes} processes"
            return f"{each} are too many for {plan.cores} cores: choose at most {max(1, most // processes)}."
        return None

    def because(self, other: "Threads | None", word: str) -> str | None:
        """Fewer against more threads has another reason than more against fewer."""
        if other is None:
            return super().because(other, word)
        if word == "faster":
            return "more cores do more arithmetic at once" if self.count > other.count else None
        if word == "slower" and self.count > other.count:
            return "the threads spend more time waiting for each other than they save"
        return self.reasons.get(word)

    def badge(self) -> str:
        return "1 thread" if self.count == 1 else f"{self.count} threads"
