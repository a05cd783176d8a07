"""The small operators of a decoder layer as Triton kernels."""

from typing import Any, ClassVar

from engine.models.families import OWN_KERNELS
from engine.optimizations import TRITON, Optimization
from engine.plan import Plan


class FusedKernels(Optimization):
    """Replace a layer's many small operators by four hand-written kernels.

    Normalising, adding the residual, rotating queries and keys, writing the cache and the gated activation are
    some thirty operators in each layer. Each reads its input from memory, computes a little and writes it
    back. Written in Triton they are four: norm with addition, rotation with cache write, norm with addition,
    activation with product. It helps where launching costs more than computing: small models, short batches.
    The matrix products stay the library's. It needs a static KV cache and a GPU. Source: Liger Kernel,
    arXiv:2410.10989.
    """

    title: ClassVar[str] = "Fused kernels"
    group: ClassVar[str] = "fusion"
    moves: ClassVar[dict[str, str]] = {"tpot_ms": "down"}
    reasons: ClassVar[dict[str, str]] = {
        "faster": "four kernels do the work of some thirty small operators in each layer",
        "slower": "starting a Triton kernel costs the host more than starting a built-in one",
        "same": "the matrix products are nearly all of the time, and these kernels leave them as they are",
    }

    @classmethod
    def unavailable(cls, machine: Any, model: Any = None) -> str | None:
        if not machine.gpus:
            return "The fused kernels are written in Triton, which needs an NVIDIA GPU."
        if model and model.model_type not in OWN_KERNELS:
            return f"The fused kernels know the layers of {', '.join(OWN_KERNELS)}, not of {model.model_type}."
        return None

    def on_transformers(self, plan: Plan) -> None:
        plan.kernels = True
        plan.expected["kernels"] = True

    def settle(self, plan: Plan) -> str | None:
        clashes = (
            (
                plan.older_than(TRITON),
                f"The fused kernels are written in Triton, which needs compute capability {TRITON} or newer, and this "
                f"GPU has {plan.capability}: switch them off, or take a CUDA graph.",
            ),
            (
                plan.device != "cuda",
                "The fused kernels need an NVIDIA GPU: set the device to cuda, or switch them off.",
            ),
            (plan.cache == "off", "The fused kernels write into a static KV cache: set the KV cache to static."),
            (bool(plan.window), "The fused kernels need a cache that does not move: switch the window off, or them."),
            (bool(plan.kv_bits), "The fused kernels write plain keys and values: switch KV quantization off, or them."),
            (plan.offload, "The fused kernels need the cache on the GPU: switch offloading off, or the kernels."),
            (plan.prefix, "The fused kernels do not know kept prefixes: switch prefix reuse off, or the kernels."),
            (bool(plan.compile), "The compiled step writes fused kernels itself: switch one of the two off."),
            (bool(plan.continuous), "Continuous batching has a cache of its own: switch it off, or the fused kernels."),
            (
                plan.tensor_parallel > 1,
                "The fused kernels know one GPU: switch tensor parallelism off, or the kernels.",
            ),
            (
                (plan.speculation or {}).get("kind") == "early_exit",
                "Early exit walks the plain layers: use another kind of guessing, or switch the fused kernels off.",
            ),
            (
                plan.attention not in ("sdpa", "eager"),
                f"The fused kernels do not go with {plan.attention}: choose sdpa attention.",
            ),
        )
        if sentence := next((sentence for clash, sentence in clashes if clash), None):
            return sentence
        if plan.cache == "dynamic":
            plan.cache = "static"
            plan.notes.append("The fused kernels use a static KV cache.")
        return None

    def badge(self) -> str:
        return "fused kernels"
