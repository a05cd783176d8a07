"""The decode step recorded once as a CUDA graph, and replayed for every token."""

from typing import Any, ClassVar

from engine.optimizations import ASKS_HOST, FULL_LENGTH, Optimization
from engine.plan import Plan


class CudaGraph(Optimization):
    """Record all kernels of a decode step once and start them together with a single call.

    A step of a small model is hundreds of kernels of a few microseconds each, and starting one costs the
    processor about as long: the GPU waits. A recorded graph starts all of them at once. The step feeds itself:
    token, position and produced text stay on the GPU, and the host reads each token while the next is being
    made. It needs a static KV cache, some memory of its own, and about a second of recording. Large models,
    whose kernels run long, gain little. Source: NVIDIA, Getting Started with CUDA Graphs, 2019.
    """

    title: ClassVar[str] = "CUDA graph"
    group: ClassVar[str] = "fusion"
    moves: ClassVar[dict[str, str]] = {"tpot_ms": "down"}
    reasons: ClassVar[dict[str, str]] = {
        "faster": "one call starts all kernels of a step, so the GPU no longer waits for the host",
        "slower": "attention over the whole static cache costs more than the calls that the graph saves",
        "same": "the kernels run longer than the host needs to start them",
    }

    @classmethod
    def unavailable(cls, machine: Any, model: Any = None) -> str | None:
        if not machine.gpus:
            return "A CUDA graph needs an NVIDIA GPU: use the compiled step on a processor."
        if machine.zero_gpu:
            return "On a shared ZeroGPU the GPU is lent for one run at a time, so a recording cannot be kept."
        if model and not model.keeps_kv:
            return f"A {model.model_type} model keeps a running state instead of keys and values."
        if model and model.alibi:
            return f"{FULL_LENGTH}, which a CUDA graph needs: run this model without it."
        if model and model.model_type in ASKS_HOST:
            return f"The code of a {model.model_type} model has no fixed shapes to record: run it without a CUDA graph."
        return None

    def on_transformers(self, plan: Plan) -> None:
        plan.graph = True
        plan.expected["graph"] = True

    def settle(self, plan: Plan) -> str | None:
        clashes = (
            (plan.device != "cuda", "A CUDA graph needs an NVIDIA GPU: set the device to cuda, or switch it off."),
            (plan.cache == "off", "A CUDA graph writes into a static KV cache: set the KV cache to static."),
            (bool(plan.window), "A CUDA graph needs a cache that does not move: switch the window off, or the graph."),
            (bool(plan.kv_bits), "A quantized KV cache grows step by step: switch it off, or the CUDA graph."),
            (plan.offload, "A CUDA graph needs its cache on the GPU: switch offloading off, or the CUDA graph."),
            (bool(plan.prefix), "A CUDA graph does not know kept prefixes: switch prefix reuse off, or the graph."),
            (bool(plan.compile), "On a GPU the compiled step is a CUDA graph already: switch one of the two off."),
            (
                bool(plan.speculation),
                "A CUDA graph makes one token a step: switch the guessing off, or the CUDA graph.",
            ),
            (
                bool(plan.continuous),
                "Continuous batching changes the shape of its steps: switch it off, or the CUDA graph.",
            ),
            (plan.tensor_parallel > 1, "A CUDA graph records one GPU: switch tensor parallelism off, or the graph."),
            (
                plan.attention not in ("sdpa", "eager"),
                f"A CUDA graph cannot hold {plan.attention}: choose sdpa attention.",
            ),
            (
                (plan.quantization or {}).get("kind") == "int8",
                "LLM.int8 looks for outliers on the host, which cannot be recorded: choose nf4, or no graph.",
            ),
        )
        if sentence := next((sentence for clash, sentence in clashes if clash), None):
            return sentence
        if plan.cache == "dynamic":
            plan.cache = "static"
            plan.notes.append("The CUDA graph uses a static KV cache.")
        return None

    def badge(self) -> str:
        return "CUDA graph"
