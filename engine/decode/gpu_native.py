"""What a session keeps for native steps on a GPU: packed weights, and the recorded steps of the newest cache."""

from collections.abc import Sequence
from typing import Any

from engine.decode.gpu import GpuStepper, Steps, recorded_width
from engine.decode.gpu_feeding import Feeding, Runner
from engine.decode.gpu_pass import Weights
from engine.decode.gpu_slots import GpuSlots
from engine.decode.native import WHOLE, release
from engine.decode.prompts import Batch
from engine.decode.sampling import Sampling
from engine.models.architecture import Architecture
from engine.plan import Plan


class GpuNative:
    """As engine.decode.native.Native, for a model on a GPU."""

    built_by = "Triton"

    def __init__(self, model: Any, plan: Plan):
        self.itemsize = model.dtype.itemsize
        kind = (plan.packed or {}).get("kind") or "plain"
        self.weights = Weights(model, kind, "int8" if kind == "int4" else kind)
        self.steps: Steps | None = None
        self.runners: dict[Sampling, Runner] = {}
        self.kept: GpuSlots | None = None
        release(model)

    def borrow(self, whole: GpuStepper) -> None:
        """A draft has the whole model's vectors of tokens already: they are not packed here."""

    def stepper(self, model: Any, length: int, pad: Sequence[int] = (0,)) -> GpuStepper:
        return GpuStepper(model, self._steps(len(pad), length), list(pad))

    def runner(self, model: Any, rows: int, length: int, sampling: Sampling) -> Runner:
        """A self-feeding step to keep for all turns of this batch, cache and sampling."""
        steps = self._steps(rows, length)
        if sampling not in self.runners:
            self.runners[sampling] = Runner(Feeding(model, steps, sampling))
        return self.runners[sampling]

    def slots(self, rows: int, length: int, chunk: int) -> GpuSlots:
        """For continuous batching; all that they run is recorded."""
        self.kept = None  # its memory is free before another one's is taken
        self.kept = GpuSlots(self.weights, rows, length, chunk)
        return self.kept

    def shape(self, batch: Batch) -> tuple:
        """What is recorded for a batch beside its steps: the reading of prompts of this width."""
        return (recorded_width(len(batch.prompts), batch.width, self.weights.kind != "plain"),)

    def _steps(self, rows: int, length: int) -> Steps:
        if self.steps is None or (self.steps.context.rows, self.steps.context.length) != (rows, length):
            self.steps = None  # its memory is free before another one's is taken
            self.runners.clear()
            self.steps = Steps(self.weights, rows, length)
        return self.steps

    @property
    def recordings(self) -> int:
        """How many recorded steps and prompts there are."""
        steps = (*self.steps.kept.values(), *self.steps.prompts.values()) if self.steps else ()
        slots = self.kept.recordings() if self.kept else ()
        return sum(bool(step.graph) for step in (*self.runners.values(), *steps, *slots))

    def stored(self) -> str:
        """What the layers' weights are kept in."""
        matrix = self.weights.layers[0].qkv
        return str(matrix.weight.dtype).removeprefix("torch.") if matrix.kind == "plain" else matrix.kind

    def quantization(self) -> dict[str, Any] | None:
        """How the packed matrices lie in memory, counted in them; None where they are plain numbers."""
        matrices = list(self.weights.matrices())
        whole = [matrix for matrix in matrices if matrix.kind in WHOLE]
        if not whole:
            return None
        kind = self.weights.layers[0].qkv.kind
        return {"class": "packed", "kind": kind, "layers": len(whole), "of": len(matrices)}

    def footprint(self, shape: Architecture) -> dict[str, Any]:
        """As engine.decode.footprint says it of other caches."""
        context = self.steps.context
        size = context.cache.element_size()
        tokens = context.rows * context.length
        return {
            "kind": "static",
            "bytes": context.cache.numel() * size,
            "tokens": tokens,
            "bytes_per_token": context.cache.numel() * size / tokens,
            "predicted_bytes_per_token": shape.kv_bytes_per_token(size),
        }
