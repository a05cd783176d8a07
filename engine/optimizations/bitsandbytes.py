"""Weights in 8 or 4 bits, by the bitsandbytes library."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from engine.optimizations import Optimization
from engine.plan import Plan


class BitsAndBytes(Optimization):
    """Keep the weights of the linear layers in 8 or 4 bits and widen them while multiplying.

    Fewer bits are fewer bytes to read for every token and less memory to hold the model: int8 is a quarter
    of float32, nf4 an eighth. The widening costs work, so at batch 1 the 8-bit scheme is often slower than
    16 bits although it reads less; 4-bit has a fused kernel and may win. The model's answers change a
    little with int8 and visibly with nf4 on small models. Embeddings and the output head stay as they are.
    Sources: LLM.int8, arXiv:2208.07339; QLoRA, arXiv:2305.14314.
    """

    title: ClassVar[str] = "Weight quantization"
    group: ClassVar[str] = "quantization"
    lossless: ClassVar[bool] = False
    moves: ClassVar[dict[str, str]] = {"weights_bytes": "down"}
    reasons: ClassVar[dict[str, str]] = {
        "faster": "quantized weights are fewer bytes to read for every token",
        "slower": "widening the quantized weights costs more than the bytes it saves",
        "same": "what fewer bytes save, widening them costs again",
    }

    kind: Literal["int8", "nf4"] = Field(
        "nf4", title="Bits", description="int8: 8-bit integers (LLM.int8). nf4: 4-bit normal floats."
    )

    @classmethod
    def unavailable(cls, machine: Any, model: Any = None) -> str | None:
        if not machine.packages.get("bitsandbytes"):
            return "The bitsandbytes package is not installed: pip install bitsandbytes."
        return None

    def on_transformers(self, plan: Plan) -> None:
        plan.quantization = {"library": "bitsandbytes", "kind": self.kind}
        plan.expected["quantization"] = self.kind

    on_generate = on_transformers

    def badge(self) -> str:
        return self.kind
