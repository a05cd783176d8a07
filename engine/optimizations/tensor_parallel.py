"""One model cut across several processes."""

from typing import Any, ClassVar

from pydantic import Field

from engine.optimizations import Optimization
from engine.plan import Plan

WITHOUT_PLAN = ("gpt2", "gpt_neo", "gpt_bigcode", "opt", "bloom", "falcon", "mpt", "stablelm", "persimmon", "mamba")
"""Architectures for which transformers has no plan; the worker asks transformers itself before it reads a weight."""

RANKS_PER_CORE = 2
"""So that the embedded model, whose heads three ranks can share, can be cut on two cores."""


class TensorParallel(Optimization):
    """Cut each weight matrix into shares, one for each GPU, and let all of them work on every token.

    Each rank reads only its share of the weights, so a step gets shorter, and a model too large for one GPU
    fits into several. After every attention and every feed-forward layer the ranks must exchange and add their
    parts. Over NVLink that is quick; on a processor it loses, since all ranks draw on the same memory anyway
    and the exchange comes on top. Sums are added in another order, so 16-bit numbers may differ a little.
    Source: Megatron-LM, arXiv:1909.08053.
    """

    title: ClassVar[str] = "Tensor parallelism"
    group: ClassVar[str] = "parallelism"
    moves: ClassVar[dict[str, str]] = {"tpot_ms": "down"}
    reasons: ClassVar[dict[str, str]] = {
        "faster": "each rank reads only its share of the weights for every token",
        "slower": "the ranks exchange their parts after every layer, which costs more than the shares save here",
    }

    size: int = Field(2, ge=2, le=8, title="Ranks", description="Processes that the model is cut across.")

    @classmethod
    def unavailable(cls, machine: Any, model: Any = None) -> str | None:
        if machine.zero_gpu:
            return "On a shared ZeroGPU the GPU is lent to one process, which may start no others."
        if machine.cores < 2 and len(machine.gpus) < 2:
            return "This machine has one core and no two GPUs, so there is nothing to cut a model across."
        if model and model.model_type in WITHOUT_PLAN:
            return f"transformers has no plan to cut a {model.model_type} model into shares: choose another model."
        return None

    def limits(self, machine: Any, model: Any = None) -> str | None:
        if not model:
            return None
        if model.heads % self.size or model.kv_heads % self.size:
            heads = f"{model.heads} attention heads and {model.kv_heads} key and value heads"
            return f"This model has {heads}, which {self.size} ranks cannot share evenly: choose another number."
        if model.vocabulary % self.size:
            words = f"{model.vocabulary} words in its vocabulary"
            return f"This model has {words}, which {self.size} ranks cannot share evenly: choose another number."
        return None

    def on_transformers(self, plan: Plan) -> None:
        plan.tensor_parallel = self.size
        plan.expected["tensor_parallel"] = self.size

    def settle(self, plan: Plan) -> str | None:
        if sentence := self._crowded(plan):
            return sentence
        rewrites = {
            "quantized weights": plan.quantization,
            "merged projections": plan.merged,
            "fused kernels": plan.kernels,
            "a compiled step": plan.compiles,
            "a recorded graph": plan.graph,
            "speculation": plan.speculation,
            "replicas": plan.replicas > 1,
            "continuous batching": plan.continuous,
        }
        clash = next((name for name, on in rewrites.items() if on), None)
        return (
            f"Tensor parallelism cuts the plain modules and does not go with {clash}: switch one off."
            if clash
            else None
        )

    def _crowded(self, plan: Plan) -> str | None:
        """One GPU each; on a processor ranks may share cores, since there is nothing to win there anyway."""
        if plan.device == "cuda" and plan.gpus < self.size:
            return f"{self.size} ranks need {self.size} GPUs, and this machine has {plan.gpus}: choose fewer."
        if plan.device != "cuda" and plan.cores * RANKS_PER_CORE < self.size:
            cores = "1 core" if plan.cores == 1 else f"{plan.cores} cores"
            return f"{self.size} ranks are too many for {cores}: choose at most {plan.cores * RANKS_PER_CORE}."
        return None

    def because(self, other: "TensorParallel | None", word: str) -> str | None:
        if other is None:
            return super().because(other, word)
        return self.reasons.get(word) if self.size > other.size else None

    def badge(self) -> str:
        return f"tensor parallel {self.size}"
