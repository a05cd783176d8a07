"""The native step on a GPU: one request or a batch over packed weights, each step a recorded graph of a few kernels."""

from typing import Any

import torch

from engine.decode.gpu_pass import WIDEST, Context, Pass, Weights
from engine.decode.graphs import recorded
from engine.decode.stepper import Stepper


class Steps:
    """The passes of one context, one for each number of new tokens, recorded on their first use."""

    def __init__(self, weights: Weights, rows: int, length: int):
        self.weights, self.context = weights, Context(weights, rows, length)
        self.kept: dict[int, Recorded] = {}

    def read(self, ids: torch.Tensor, place: int, ragged: bool, keep: int) -> torch.Tensor:
        """Logits of the last `keep` positions of ids [rows, tokens], float32 [rows, keep, vocabulary]."""
        tokens = ids.shape[1]
        whole = Pass(self.weights, self.context, tokens)
        hidden = whole.read(ids, place, ragged).view(len(ids), tokens, -1)[:, -keep:].contiguous()
        return whole.logits(hidden.flatten(0, 1)).view(len(ids), keep, -1)

    def step(self, ids: torch.Tensor, place: int) -> torch.Tensor:
        """Logits of every position; they are written over by the next step of as many tokens."""
        tokens = ids.shape[1]
        if tokens not in self.kept:
            self.kept[tokens] = Recorded(Pass(self.weights, self.context, tokens))
        return self.kept[tokens](ids, place)


class Recorded:
    """A pass from token ids to logits; on CUDA it is recorded as a graph when it first runs."""

    def __init__(self, steps: Pass):
        self.steps = steps
        self.ids = torch.zeros(steps.context.rows, steps.tokens, dtype=torch.long, device=steps.context.place.device)
        self.logits = torch.empty(0)
        self.graph: Any = None

    def body(self) -> None:
        found = self.steps.logits(self.steps.run(self.steps.weights.embedding[self.ids.flatten()]))
        self.logits = found.view(*self.ids.shape, -1)

    def __call__(self, ids: torch.Tensor, place: int) -> torch.Tensor:
        self.ids.copy_(ids)
        self.steps.context.place.fill_(place)
        if self.graph is None and ids.is_cuda:
            self.graph = recorded(self.body)
        self.graph.replay() if self.graph else self.body()
        return self.logits


class GpuStepper(Stepper):
    """A batch over packed weights. Tokens are taken back by forgetting their columns, which are never read again."""

    fixed_width = native = True

    def __init__(self, model: Any, steps: Steps, pad: list[int]):
        super().__init__(model, pad)
        self.steps, self.ragged = steps, any(pad)
        steps.context.pad.copy_(torch.tensor(pad))

    def read(self, ids: torch.Tensor) -> torch.Tensor:
        return self._read(ids, 1)

    def step(self, ids: torch.Tensor) -> torch.Tensor:
        if ids.shape[1] > WIDEST:
            return self._read(ids, ids.shape[1])
        self.length += ids.shape[1]
        return self.steps.step(ids, self.length - ids.shape[1])

    def _read(self, ids: torch.Tensor, keep: int) -> torch.Tensor:
        self.length += ids.shape[1]
        return self.steps.read(ids, self.length - ids.shape[1], self.ragged, keep)

    def rollback(self, tokens: int) -> None:
        self.length -= tokens

    def kv_bytes(self) -> int:
        cache = self.steps.context.cache
        return cache.numel() * cache.element_size()

    def cache_name(self) -> str:
        return "packed"
