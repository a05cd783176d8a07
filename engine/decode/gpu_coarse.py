"""A model's own weights in fewer bits, as the draft of its native step on a GPU: recorded, over the same cache."""

from typing import Any

from engine.decode.coarse import HEAD
from engine.decode.gpu import GpuStepper, Steps
from engine.decode.gpu_pass import Weights
from engine.plan import Plan


class GpuOwnWeights:
    """As engine.decode.coarse.OwnWeights. A guess is one replay; what it writes is written again by the check."""

    def __init__(self, model: Any, plan: Plan):
        self.weights = Weights(model, plan.draft["packed"]["kind"], HEAD)
        self.steps: Steps | None = None

    @property
    def kind(self) -> str:
        return self.weights.layers[0].qkv.kind

    def bytes(self) -> int:
        """Without the tokens' vectors, which are the model's own."""
        return sum(matrix.bytes() for matrix in self.weights.matrices())

    def stepper(self, whole: GpuStepper) -> GpuStepper:
        context = whole.steps.context
        if self.steps is None or self.steps.context is not context:
            self.steps = None  # its recordings go before others are made
            self.steps = Steps(self.weights, context.rows, context.length, context)
        return GpuStepper(whole.model, self.steps, context.pad.tolist())
