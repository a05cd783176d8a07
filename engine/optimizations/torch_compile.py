"""The decode step as fused kernels, by torch.compile."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from engine.optimizations import ASKS_HOST, FULL_LENGTH, Optimization
from engine.plan import Plan


class TorchCompile(Optimization):
    """Compile the decode step into fused kernels instead of launching hundreds of small operators.

    The compiler sees the whole step: it joins neighbouring operators into one loop, so that values stay in
    registers instead of travelling through memory, packs the weights for the matrix products, and on a GPU
    replays the step as one recorded graph. It needs fixed shapes, so the KV cache becomes a static one, and
    it costs seconds to minutes before the first token: worth it when many tokens follow. The result is the
    same up to rounding. Source: PyTorch 2, ASPLOS 2024, doi:10.1145/3620665.3640366.
    """

    title: ClassVar[str] = "Compiled step"
    group: ClassVar[str] = "fusion"
    moves: ClassVar[dict[str, str]] = {"tpot_ms": "down"}
    reasons: ClassVar[dict[str, str]] = {
        "faster": "the compiled step runs fused kernels over packed weights",
        "slower": "the compiled kernels do not beat the library's matrix products here",
        "same": "the matrix products are nearly all of the time, and compiling leaves them as they are",
    }

    mode: Literal["default", "max-autotune"] = Field(
        "default",
        title="Compiled step",
        description="default: compile once. max-autotune: try several kernels for each product and keep the best.",
    )

    @classmethod
    def unavailable(cls, machine: Any, model: Any = None) -> str | None:
        if not machine.compiler:
            return "torch.compile needs a C++ compiler (g++ or clang++) on this machine: install g++."
        if machine.zero_gpu:
            return "On a shared ZeroGPU the GPU is lent for one run at a time, so a compiled step cannot be kept."
        if model and model.alibi:
            return f"{FULL_LENGTH}, which a compiled step needs: run this model without it."
        if model and model.model_type in ASKS_HOST:
            return f"The code of a {model.model_type} model has no fixed shapes to compile: run it without this step."
        return None

    def on_transformers(self, plan: Plan) -> None:
        plan.compile = self.mode
        plan.expected |= {"compiled": "in one piece", "compile_mode": self.mode}

    on_generate = on_transformers

    def settle(self, plan: Plan) -> str | None:
        if plan.cache == "off":
            return "A compiled step needs fixed shapes: set the KV cache to static, or switch the compiled step off."
        if plan.quantization and plan.quantization["kind"] == "int8":
            return (
                "LLM.int8 looks for outliers at run time, which cannot be compiled: "
                "choose nf4 for the weight quantization, or switch the compiled step off."
            )
        if plan.backend == "generate" and plan.device == "cpu":
            return (
                "transformers' generate compiles on a GPU only: use the Pitlane loop, or switch the compiled step off."
            )
        if plan.backend == "generate" and plan.speculation:
            return "transformers' generate does not compile speculation: switch one of the two off."
        if plan.cache == "dynamic":
            plan.cache = "static"
            plan.notes.append("The compiled step uses a static KV cache.")
        return None

    def badge(self) -> str:
        return "compiled" if self.mode == "default" else "compiled, autotuned"
