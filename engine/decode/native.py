"""The native step: a model's whole pass over new tokens as one call of a library compiled for this processor."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from engine.decode.native_slots import NativeSlots
from engine.decode.prompts import Batch
from engine.decode.sampling import Choose, Sampling
from engine.decode.stepper import Stepper
from engine.decode.trained import Borrowed
from engine.kernels.packed import MOST, PLACES, Chooser, Decoder
from engine.kernels.weights import Weights
from engine.models.architecture import Architecture
from engine.models.quantize import own
from engine.plan import Plan

WHOLE = ("int8", "int4")
FLOATS = 4


class NativeStepper(Stepper):
    """Requests over packed weights and a cache of their own, which keeps float32 whatever the weights are.

    What was padded on the left is not read, and every text begins at place 0. Tokens are taken back by forgetting
    their places: what lies behind the last one is never read.
    """

    native = True

    def __init__(self, model: Any, decoder: Decoder, pad: Sequence[int]):
        super().__init__(model, [0])
        self.decoder = decoder
        self.start = torch.tensor(pad)[:, None]
        self.alone = len(pad) == 1 and not any(pad)

    def _forward(self, forward: Any, ids: torch.Tensor, keep: int) -> torch.Tensor:
        count, width = ids.shape
        if self.alone:
            self.length += width
            return self.decoder.follow(ids[0].contiguous(), self.length - width, keep)[None]
        places = torch.arange(self.length, self.length + width) - self.start
        there = places >= 0
        rows = torch.arange(count)[:, None].expand(count, width)[there]
        last = there.sum(1).cumsum(0)[:, None]
        wanted = (last + torch.arange(-keep, 0)).flatten()
        logits = self.decoder.step(ids[there], rows, places[there], wanted)
        self.length += width
        return logits.view(count, keep, -1)

    def read(self, ids: torch.Tensor) -> torch.Tensor:
        return self._forward(None, ids, 1)

    def step(self, ids: torch.Tensor) -> torch.Tensor:
        return self._forward(None, ids, ids.shape[1])

    def write(self, tokens: torch.Tensor, sampling: Sampling, choose: Choose) -> Iterator[list[int]]:
        """Greedy, the step itself finds the likeliest token."""
        if not sampling.greedy or len(self.start) > self.decoder.most:
            yield from super().write(tokens, sampling, choose)
        banned = sorted(sampling.stop) if sampling.fixed_length else []
        follow = Chooser(self.decoder, range(len(self.start)), banned)
        values, starts = tokens[:, 0].tolist(), self.start[:, 0].tolist()
        while True:
            yield values
            places = [self.length - start for start in starts]
            self.length += 1
            values = follow(values, places)

    def rollback(self, tokens: int) -> None:
        self.length -= tokens

    def kv_bytes(self) -> int:
        return self.decoder.cache.numel() * FLOATS

    def cache_name(self) -> str:
        return "packed"


class Native:
    """What a session keeps for native steps: packed weights, and one decoder for the newest cache length.

    `itemsize` is the bytes of a kept number, `built_by` what compiled the newest step: C++ or numba.
    """

    itemsize = FLOATS

    def __init__(self, model: Any, plan: Plan):
        kind = (plan.packed or {}).get("kind") or plan.dtype
        self.fine = plan.packed["inputs"] != 8 if plan.packed else plan.dtype == "float32"
        alone = not isinstance(model.get_input_embeddings(), Borrowed)
        self.weights = Weights(model, kind, "int8" if kind == "int4" else kind, alone)
        self.threads = plan.threads or torch.get_num_threads()
        self.decoder: Decoder | None = None
        self.built_by: str | None = None
        release(model)

    def borrow(self, whole: NativeStepper) -> None:
        """A draft looks tokens up where the whole model does."""
        self.weights.embedding = whole.decoder.weights.embedding

    def stepper(self, model: Any, length: int, pad: Sequence[int] = (0,)) -> NativeStepper:
        length = -(-length // PLACES) * PLACES
        if self.decoder is None or (self.decoder.length, self.decoder.rows) != (length, len(pad)):
            self.decoder = None  # its memory is free before another one's is taken
            self.decoder = Decoder(self.weights, length, self.threads, self.fine, len(pad))
        self.built_by = self.decoder.library.built_by
        return NativeStepper(model, self.decoder, pad)

    def slots(self, rows: int, length: int, chunk: int) -> NativeSlots:
        """For continuous batching: a step reads at most a chunk of prompts beside everybody's next token."""
        self.decoder = None  # its memory is free before another one's is taken
        most = min(chunk, MOST) + rows
        made = NativeSlots(Decoder(self.weights, length, self.threads, self.fine, rows, most=most))
        self.built_by = made.decoder.library.built_by
        return made

    def shape(self, batch: Batch) -> tuple:
        """What has to be made ready for a batch beside its steps: nothing, one decoder reads prompts of all lengths."""
        return ()

    def stored(self) -> str:
        """What the layers' weights are kept in."""
        return self.weights.layers[0]["qkv"].kind

    def quantization(self) -> dict[str, Any] | None:
        """How the packed matrices lie in memory, counted in them; None where they are plain numbers."""
        matrices = list(self.weights.matrices())
        whole = [matrix for matrix in matrices if matrix.kind in WHOLE]
        if not whole:
            return None
        return {
            "class": "packed",
            "kind": self.weights.layers[0]["qkv"].kind,
            "layers": len(whole),
            "of": len(matrices),
        }

    def footprint(self, shape: Architecture) -> dict[str, Any]:
        """As engine.decode.footprint says it of other caches."""
        cache = self.decoder.cache
        places = self.decoder.length * self.decoder.rows
        return {
            "kind": "static",
            "bytes": cache.numel() * FLOATS,
            "tokens": places,
            "bytes_per_token": cache.numel() * FLOATS / places,
            "predicted_bytes_per_token": shape.kv_bytes_per_token(FLOATS),
        }


def natively(plan: Plan) -> Any:
    """What keeps packed weights and their steps; the kernels of a GPU are imported where there is one only."""
    if plan.device != "cuda":
        return Native
    from engine.decode.gpu_native import GpuNative

    return GpuNative


def release(model: Any) -> None:
    """Let go of the weights that were packed: the modules stay, for what they say of the model, without numbers."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
            module.weight = torch.nn.Parameter(module.weight.new_empty(0), requires_grad=False)
    own(model)
