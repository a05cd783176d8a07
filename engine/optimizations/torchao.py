"""Weights, and activations too where asked, in 8 or 4 bits, by the torchao library."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from engine.optimizations import WeightQuantization
from engine.plan import Plan

GROUP = 64
NEEDS = {"fp8-weight-only": 8.9, "fp8-dynamic": 8.9, "int4-weight-only": 8.0}
"""Lowest compute capability of a GPU by kind."""
GPU_ONLY = ("fp8-dynamic", "int4-weight-only")
BFLOAT16_ONLY = ("fp8-dynamic", "int4-weight-only")


class TorchAO(WeightQuantization):
    """Keep the weights in 8 or 4 bits, as plain tensors that torch.compile can fuse into its kernels.

    Weight-only kinds read fewer bytes and widen them before the product; dynamic kinds round the activations as
    well, for every token anew, and multiply narrow numbers with narrow ones, which pays for long prompts and
    large batches on hardware made for it. Uncompiled, each layer takes several small operators more, so it is
    often slower than 16 bits: switch the compiled step on too. int8 changes the answers hardly at all, fp8 a
    little, int4 visibly on a small model. Embeddings and the output head stay as they are.
    Source: torchao, arXiv:2507.16099.
    """

    title: ClassVar[str] = "Weight quantization (torchao)"
    package: ClassVar[str] = "torchao"
    only: ClassVar[dict[str, tuple[str, ...]]] = {"group_size": ("int4-weight-only",)}
    reasons: ClassVar[dict[str, str]] = {
        "faster": "quantized weights are fewer bytes to read for every token",
        "slower": "widening the weights takes operators of its own in every layer, which only a compiled step fuses",
        "same": "what fewer bytes save, widening them costs again",
    }

    kind: Literal["int8-weight-only", "int8-dynamic", "fp8-weight-only", "fp8-dynamic", "int4-weight-only"] = Field(
        "int8-weight-only",
        title="Bits (torchao)",
        description="weight-only: activations keep their format. dynamic: they are rounded too, token by token. "
        "fp8-dynamic and int4 run on a GPU only.",
    )
    group_size: Literal[32, 64, 128, 256] = Field(
        GROUP,
        title="Group size",
        description="int4 only: weights that share one scale. Smaller groups are more exact and take more memory.",
    )

    @classmethod
    def advice(cls, machine: Any) -> str:
        if not machine.gpus:
            return "There are no 4 bits here, which need a GPU: take packed int4 with the native step, or nf4."
        return "Take int4 from here where the step is compiled; for the Llama family packed int4 with the native step."

    def limits(self, machine: Any, model: Any = None) -> str | None:
        if self.kind != "int4-weight-only" and self.group_size != GROUP:
            return f"The group size belongs to int4: leave it at {GROUP}, or choose int4-weight-only."
        needed = NEEDS.get(self.kind)
        if needed and machine.gpus and float(machine.gpus[0].capability) < needed:
            return (
                f"{self.kind} needs a GPU of compute capability {needed} or newer, and this one has "
                f"{machine.gpus[0].capability}: choose int8-weight-only."
            )
        if self.kind in GPU_ONLY and not machine.gpus:
            return f"{self.kind} needs an NVIDIA GPU: choose int8-weight-only, which runs on a CPU too."
        return self._narrow(model)

    def _narrow(self, model: Any) -> str | None:
        """torchao leaves a layer as it is, in silence, where its width does not fit."""
        step = {"int4-weight-only": self.group_size, "fp8-dynamic": 16}.get(self.kind)
        if model is None or not step:
            return None
        widths = (model.hidden, model.feed_forward, model.heads * model.head_dim)
        odd = next((width for width in widths if width % step), None)
        if odd is None:
            return None
        fits = [size for size in (32, 64, 128, 256) if not any(width % size for width in widths)]
        advice = f"a group size of {fits[-1]}" if self.kind == "int4-weight-only" and fits else "int8-weight-only"
        return f"{self.kind} takes layers in steps of {step}, and this model has one of {odd}: choose {advice}."

    def on_transformers(self, plan: Plan) -> None:
        if self.kind != "int4-weight-only":
            self.claim(plan)
            return
        self.claim(plan, group=self.group_size)
        plan.expected["quantization.group"] = self.group_size

    on_generate = on_transformers

    def settle(self, plan: Plan) -> str | None:
        if self.kind in GPU_ONLY and plan.device == "cpu":
            return f"{self.kind} runs on a GPU only: set the device to auto, or choose int8-weight-only."
        if self.kind in BFLOAT16_ONLY and plan.dtype != "bfloat16":
            return f"{self.kind} multiplies with bfloat16 only: set the number format to bfloat16."
        return super().settle(plan)

    def expected_loss(self) -> tuple[float, float]:
        return LOSS[self.kind]


LOSS = {
    "int8-weight-only": (0.01, 0.92),
    "int8-dynamic": (0.06, 0.86),
    "fp8-weight-only": (0.04, 0.87),
    "fp8-dynamic": (0.08, 0.82),
    "int4-weight-only": (0.5, 0.55),
}
"""Measured: int8-weight-only 0.003 and 0.95, int8-dynamic 0.029 and 0.91, fp8-weight-only 0.016 and 0.92.

The last two run on a GPU only and are bounded by their relatives: fp8-dynamic rounds the activations as well, and
int4 has as many levels as nf4.
"""
