"""Several workers with a whole model each."""

from typing import Any, ClassVar

from pydantic import Field

from engine.optimizations import Optimization
from engine.plan import Plan


class Replicas(Optimization):
    """Run several whole copies of the model that share one line of requests.

    Each worker has cores (or a GPU) of its own and takes the next request whenever it is free, so nobody waits
    for anybody inside a step. Many small workers often answer more requests in all than one big one, because
    threads that share an operator lose time waiting for each other. A single request gets slower, since it has
    fewer cores, and the memory for the weights is paid once for each worker. With one request at a time it
    gains nothing. Source: PyTorch tutorials, Grokking PyTorch Intel CPU performance from first principles.
    """

    title: ClassVar[str] = "Replicas"
    group: ClassVar[str] = "parallelism"
    moves: ClassVar[dict[str, str]] = {"output_tok_per_s": "up"}
    reasons: ClassVar[dict[str, str]] = {
        "faster": "workers on cores of their own never wait for each other inside a step",
        "slower": "each request has fewer cores, and they share the memory's bandwidth",
        "same": "the workers draw on the same memory, which limits them together",
    }

    count: int = Field(2, ge=2, le=8, title="Workers", description="Whole copies of the model, each in a process.")

    @classmethod
    def unavailable(cls, machine: Any, model: Any = None) -> str | None:
        if machine.zero_gpu:
            return "On a shared ZeroGPU the GPU is lent to one process, which may start no others."
        if machine.cores < 2:
            return "This machine has one core, so a second worker would have none of its own."
        return None

    def limits(self, machine: Any, model: Any = None) -> str | None:
        if machine.cores < self.count:
            return f"{self.count} workers need {self.count} cores, and this machine has {machine.cores}: choose fewer."
        return None

    def on_transformers(self, plan: Plan) -> None:
        plan.replicas = self.count
        plan.expected["replicas"] = self.count

    on_generate = on_simulated = on_transformers

    def settle(self, plan: Plan) -> str | None:
        if plan.device == "cuda" and plan.gpus < self.count:
            return f"{self.count} workers need {self.count} GPUs, and this machine has {plan.gpus}: choose fewer."
        if plan.continuous:
            return "Replicas hand requests out one at a time, which starves a continuous batch: switch one of them off."
        return None

    def because(self, other: "Replicas | None", word: str) -> str | None:
        if other is None:
            return super().because(other, word)
        more = self.count > other.count
        return self.reasons.get(word) if more else None

    def badge(self) -> str:
        return f"{self.count} workers"
