"""The native step on a GPU: one request or a batch over packed weights, each step a recorded graph of a few kernels."""

from typing import Any

import torch
from torch.nn.functional import pad as filled

from engine.decode.gpu_pass import WIDEST, Context, Pass, Weights
from engine.decode.graphs import recorded
from engine.decode.stepper import Stepper
from engine.kernels.skinny import SKINNY

LONGEST = 512
"""Tokens of prompts that are recorded: launching their kernels takes 16 to 19 ms, and a GPU computes about as long with
so many of an 8B shape (8 TFLOP, reckoned and not measured). Of packed weights SKINNY at most: beyond, all of them are
unpacked, which a recording would hold memory for."""


def recorded_width(rows: int, tokens: int, packed: bool) -> int | None:
    """How wide the recording is that reads prompts of so many tokens; None where they are too long for one.

    Few widths serve all prompts: powers of two from WIDEST to SKINNY, and multiples of SKINNY.
    """
    width = -(-tokens // SKINNY) * SKINNY if tokens > SKINNY else max(WIDEST, 1 << (tokens - 1).bit_length())
    return width if rows * width <= (SKINNY if packed else LONGEST) else None


class Steps:
    """The passes of one context, made on their first use: a step for each number of new tokens, prompts by width.

    A `context` may be that of other steps of the same model, whose cache these then share.
    """

    def __init__(self, weights: Weights, rows: int, length: int, context: Context | None = None):
        self.weights, self.context = weights, context or Context(weights, rows, length)
        self.kept: dict[int, Recorded] = {}
        self.prompts: dict[tuple[int, bool], Prompt] = {}

    def prompt(self, ids: torch.Tensor, ragged: bool) -> torch.Tensor:
        """Logits of the last position of the prompts ids [rows, tokens], float32 [rows, 1, vocabulary]."""
        width = recorded_width(*ids.shape, self.weights.kind != "plain")
        if not width or width > self.context.length:
            return self.read(ids, 0, ragged, 1)
        if (width, ragged) not in self.prompts:
            self.prompts[width, ragged] = Prompt(Pass(self.weights, self.context, width), ragged)
        return self.prompts[width, ragged].read(ids)

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
        return self.run()

    def record(self) -> None:
        if self.graph is None and self.ids.is_cuda:
            self.graph = recorded(self.body)

    def run(self) -> torch.Tensor:
        self.record()
        self.graph.replay() if self.graph else self.body()
        return self.logits


class Prompt(Recorded):
    """A pass over prompts from the first column on, filled up behind their last tokens to the width of the recording.

    No token sees what comes after it, and columns that the filling has left are written again before they are seen.
    """

    def __init__(self, steps: Pass, ragged: bool):
        super().__init__(steps)
        self.ragged = ragged
        self.last = torch.zeros(1, dtype=torch.long, device=self.ids.device)

    def body(self) -> None:
        steps, ids = self.steps, self.ids
        short = steps.tokens <= WIDEST
        hidden = steps.run(steps.weights.embedding[ids.flatten()]) if short else steps.read(ids, 0, self.ragged)
        last = hidden.view(*ids.shape, -1).index_select(1, self.last)
        self.logits = steps.logits(last.flatten(0, 1))[:, None]

    def read(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits of the last position of the prompts, until the next ones are read."""
        self.last.fill_(ids.shape[1] - 1)
        return self(filled(ids, (0, self.steps.tokens - ids.shape[1])), 0)


class GpuStepper(Stepper):
    """A batch over packed weights. Tokens are taken back by forgetting their columns, which are never read again."""

    fixed_width = native = True

    def __init__(self, model: Any, steps: Steps, pad: list[int]):
        super().__init__(model, pad)
        self.steps, self.ragged = steps, any(pad)
        steps.context.pad.copy_(torch.tensor(pad))

    def read(self, ids: torch.Tensor) -> torch.Tensor:
        if self.length:
            return self._read(ids, 1)
        self.length = ids.shape[1]
        return self.steps.prompt(ids, self.ragged)

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
