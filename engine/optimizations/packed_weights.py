"""Weights of the native step in 8 or 4 bits."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from engine.optimizations import Optimization
from engine.plan import Plan


class PackedWeights(Optimization):
    """Keep the native step's weights in 8 or 4 bits and multiply them as integers.

    Processors multiply four pairs of bytes and add them in one instruction. 8-bit weights have a scale for each
    row, 4-bit ones for each group of 32. What comes in is rounded as well: to 16 bits, which are multiplied in two
    halves and lose next to nothing, or to 8 bits, which is less work and costs some accuracy. A quarter or an eighth
    of the bytes is read. Sources: Dettmers et al. 2022, arXiv:2208.07339; llama.cpp, Q4_0.
    """

    title: ClassVar[str] = "Packed weights"
    group: ClassVar[str] = "quantization"
    lossless: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("native_step",)
    moves: ClassVar[dict[str, str]] = {"tpot_ms": "down", "weights_bytes": "down"}
    reasons: ClassVar[dict[str, str]] = {
        "faster": "a quarter or an eighth of the bytes is read, and integers are multiplied four at a time",
        "slower": "this processor has no instruction that multiplies bytes and adds them",
    }

    kind: Literal["int8", "int4"] = Field("int8", title="Packed weights", description="Bits of a weight.")
    inputs: Literal["16", "8"] = Field("16", title="Input bits", description="Bits to which what comes in is rounded.")

    @classmethod
    def unavailable(cls, machine: Any, model: Any = None) -> str | None:
        if machine.compiler or machine.gpus or machine.packages.get("numba"):
            return None
        return "Packed weights need the native step: install g++, or pip install numba."

    @classmethod
    def advice(cls, machine: Any) -> str:
        others = "nf4, or torchao's int4 in a compiled step" if machine.gpus else "nf4"
        return f"Of the kinds of 4 bits take int4 from here for the Llama family; for other models {others}."

    def on_transformers(self, plan: Plan) -> None:
        plan.packed = {"kind": self.kind, "inputs": int(self.inputs)}
        plan.expected["quantization"] = self.kind
        if plan.device != "cuda":  # a GPU multiplies with what comes in as the model computes it
            plan.expected["input_bits"] = int(self.inputs)

    def settle(self, plan: Plan) -> str | None:
        if not plan.native:
            return "Packed weights are read by the native step: switch it on as well."
        if plan.device == "cuda" and self.inputs == "8":
            return "On a GPU the inputs of packed weights stay in 16 bits: set the input bits to 16."
        return None

    def expected_loss(self) -> tuple[float, float]:
        return LOSS[self.kind, self.inputs]

    def badge(self) -> str:
        return f"packed {self.kind}" + " x 8" * (self.inputs == "8")


LOSS = {("int8", "16"): (0.01, 0.9), ("int8", "8"): (0.08, 0.8), ("int4", "16"): (0.4, 0.6), ("int4", "8"): (0.5, 0.6)}
