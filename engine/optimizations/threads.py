"""How many processor threads share one operator."""

from typing import Any, ClassVar

from pydantic import Field

from engine.optimizations import Optimization
from engine.plan import Plan


class Threads(Optimization):
    """Share each matrix product between processor cores.

    One core alone cannot draw the memory's full bandwidth and has only its own arithmetic units; several
    split the rows of every product between them. The gain ends where the memory is saturated, and more
    threads than cores, or a neighbour on the same cores, make it slower. It is the simplest parallelism
    there is: no accuracy is lost. Source: PyTorch notes, CPU threading and TorchScript inference.
    """

    title: ClassVar[str] = "CPU threads"
    group: ClassVar[str] = "parallelism"
    moves: ClassVar[dict[str, str]] = {"ttft_ms": "down"}
    reasons: ClassVar[dict[str, str]] = {
        "slower": "fewer cores draw less memory bandwidth and do less arithmetic at once",
        "same": "more cores do not speed up what this step waits for",
    }

    count: int = Field(
        1, ge=1, le=256, title="Threads", description="Cores that share one operator (intra-op threads)."
    )

    @classmethod
    def unavailable(cls, machine: Any, model: Any = None) -> str | None:
        if machine.cores < 2:
            return "This machine has one core, so there is nothing to share."
        return None

    def on_transformers(self, plan: Plan) -> None:
        plan.threads = self.count
        plan.expected["threads"] = plan.threads

    on_generate = on_transformers

    def badge(self) -> str:
        return "1 thread" if self.count == 1 else f"{self.count} threads"
