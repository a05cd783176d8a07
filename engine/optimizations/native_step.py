"""The whole decode step as one call of a compiled library."""

from typing import Any, ClassVar

from engine.models.families import OWN_KERNELS
from engine.optimizations import TRITON, Optimization
from engine.plan import Plan

WIDTH, ROWS = 16, 32
"""Numbers in a vector, and those that share a scale: the shapes of a model must be multiples."""


class NativeStep(Optimization):
    """Read every weight once, in one call, instead of launching a thousand operators from Python.

    A step of a small model is a thousand operators, and each waits for the interpreter, for memory and for all
    threads. Here the whole pass is one function compiled for this processor, from C++ or by numba; on an NVIDIA GPU it
    is five Triton kernels a layer, recorded as one CUDA graph that feeds itself. Weights are packed in the order of
    reading. It helps most at batch 1 and knows the Llama family. Sums have 32 bits, and 32-bit weights that fit into
    16 are kept so: nothing is lost. Sources: llama2.c (Karpathy 2023); Spector et al.
    2025, No Bubbles.
    """

    title: ClassVar[str] = "Native step"
    group: ClassVar[str] = "fusion"
    moves: ClassVar[dict[str, str]] = {"tpot_ms": "down"}
    reasons: ClassVar[dict[str, str]] = {
        "faster": "one compiled call reads each weight once, where a thousand operators were launched",
        "slower": "the library's products are better than the native ones for so many tokens at once",
        "same": "the library reads the weights as fast as the native step does",
    }

    @classmethod
    def unavailable(cls, machine: Any, model: Any = None) -> str | None:
        if machine.zero_gpu:
            return "On a shared ZeroGPU the GPU is lent for one run at a time, so a recorded step cannot be kept."
        if not (machine.compiler or machine.gpus or machine.packages.get("numba")):
            return "The native step is compiled for this processor: install g++, or pip install numba."
        if model and model.model_type not in OWN_KERNELS:
            return f"The native step knows the layers of {', '.join(OWN_KERNELS)}, not of {model.model_type}."
        if model and model.narrow:
            return f"This checkpoint comes quantized ({model.narrow}), and the native step packs plain weights."
        if model and (model.head_dim % WIDTH or model.hidden % ROWS or model.feed_forward % ROWS):
            return (
                f"The native step works on {WIDTH} numbers at a time, and this model's shapes are no multiples of it."
            )
        if model and model.sliding:
            return "The native step keeps all keys and values, and layers of this model have a sliding window."
        return None

    def on_transformers(self, plan: Plan) -> None:
        plan.native = True
        plan.expected["native"] = True

    def settle(self, plan: Plan) -> str | None:
        name = "The native step"
        clashes = (
            (
                plan.older_than(TRITON),
                f"On a GPU the native step is written in Triton, which needs compute capability {TRITON} or newer, and "
                f"this one has {plan.capability}: set the device to cpu, or take a CUDA graph.",
            ),
            (plan.device not in ("cpu", "cuda"), f"{name} is written for processors and NVIDIA GPUs: choose one."),
            (plan.cache == "off", f"{name} writes into a KV cache of its own: set the KV cache to static."),
            (plan.offload, f"{name} needs its cache beside it: switch offloading off, or the native step."),
            (bool(plan.window or plan.kv_bits), f"{name} keeps all keys and values as they are: switch one off."),
            (bool(plan.prefix), f"{name} does not know kept prefixes: switch prefix reuse off, or the native step."),
            (bool(plan.compile), f"{name} is compiled already: switch the compiled step off, or the native one."),
            (plan.merged or plan.kernels, f"{name} takes the place of merged and fused layers: switch those off."),
            (bool(plan.quantization), f"{name} packs its own weights: switch the other quantization off."),
            (plan.tensor_parallel > 1, f"{name} needs the whole model in one process: switch one of the two off."),
            ((plan.speculation or {}).get("kind") == "early_exit", f"{name} cannot end early: switch one off."),
            (plan.attention != "sdpa" or bool(plan.sdpa), f"{name} has an attention of its own: set it to auto."),
        )
        if sentence := next((sentence for clash, sentence in clashes if clash), None):
            return sentence
        if plan.continuous:  # its slots are a cache of their own, and the host says before each step what it reads
            return None
        plan.cache = "static"
        if plan.device == "cuda" and not plan.speculation:
            plan.graph = True  # the step feeds itself
        return None

    def badge(self) -> str:
        return "native step"
