"""A model's own weights in fewer bits, as the draft of its native step: packed a second time, over the same cache."""

from typing import Any, Protocol

import torch

from engine.decode.native import NativeStepper
from engine.decode.stepper import Stepper
from engine.kernels.packed import Decoder
from engine.kernels.weights import Weights
from engine.plan import Plan

HEAD = "int8"
"""What the last product is packed in, whatever the layers are: it decides between tokens."""


class Second(Protocol):
    """The second packing of a session's model."""

    @property
    def kind(self) -> str:
        """What its layers are kept in."""

    def bytes(self) -> int:
        """Bytes that it takes beside the model's own."""

    def stepper(self, whole: Stepper) -> Stepper:
        """Steps over the cache of the `whole` model's; what they read is not counted there."""


class OwnWeights:
    """For a processor. Packs the loaded model, whose weights must still be there."""

    def __init__(self, model: Any, plan: Plan):
        asked = plan.draft["packed"]
        self.weights = Weights(model, asked["kind"], HEAD, alone=False)
        self.fine = asked["inputs"] != 8
        self.threads = plan.threads or torch.get_num_threads()
        self.decoder: Decoder | None = None

    @property
    def kind(self) -> str:
        return self.weights.layers[0]["qkv"].kind

    def bytes(self) -> int:
        return self.weights.bytes()

    def stepper(self, whole: NativeStepper) -> NativeStepper:
        beside = whole.decoder
        if self.decoder is None or self.decoder.cache is not beside.cache:
            self.decoder = Decoder(self.weights, beside.length, self.threads, self.fine, beside.rows, beside)
        return NativeStepper(whole.model, self.decoder, whole.start[:, 0].tolist())


def second(model: Any, plan: Plan) -> Second:
    """The second packing for this plan's device; the kernels of a GPU are imported where there is one only."""
    if plan.device != "cuda":
        return OwnWeights(model, plan)
    from engine.decode.gpu_coarse import GpuOwnWeights

    return GpuOwnWeights(model, plan)
