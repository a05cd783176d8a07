"""Beginnings that prompts share: read once, kept for one turn, and copied into the cache of later requests."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engine.backends import Emit
from engine.decode.prompts import Batch
from engine.decode.stepper import Cached, Growing
from engine.event import Admitted

MOST = 4
"""Beginnings that are kept at once; the one that was not used for longest goes first."""


@dataclass(frozen=True)
class Beginning:
    """Token ids with their keys and values, for each layer two of [1, heads, tokens, channels]."""

    ids: tuple[int, ...]
    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for layer in self.layers for tensor in layer)


class Prefixes:
    """What one turn keeps of the prompts it has read. A new turn starts with none, so that rounds stay alike.

    A request that begins like a kept one, for at least `least` tokens, takes those keys and values over and reads
    only the rest. At least one token is always left to read: its logits choose the first new one.
    Source: Zheng et al. 2024, SGLang, arXiv:2312.07104, section 3.
    """

    def __init__(self, least: int):
        self.least = least
        self.kept: list[Beginning] = []
        self.prompt_tokens = self.reused = 0

    @property
    def bytes(self) -> int:
        return sum(beginning.bytes for beginning in self.kept)

    def facts(self) -> dict[str, Any]:
        """Tokens of the turn's prompts, how many were taken over, and what is kept; no kind where none was read."""
        rate = self.reused / self.prompt_tokens if self.prompt_tokens else 0.0
        counts = {"prompt_tokens": self.prompt_tokens, "reused": self.reused, "hit_rate": rate}
        kind = "kept beginnings" if self.prompt_tokens else None
        return {"kind": kind, "least": self.least, "beginnings": len(self.kept), "bytes": self.bytes, **counts}

    def read(self, batch: Batch, emit: Emit, stepper: Cached, ids: torch.Tensor) -> torch.Tensor:
        """Read the prompts of a batch, [batch, width] padded on the left; logits of the last position."""
        found, tokens = self._longest(batch.prompts)
        reused = [tokens] * len(batch.prompts)
        shared = common(batch.prompts)
        if len(batch.prompts) > 1 and tokens < self.least <= shared:
            found, tokens = self._read_alone(stepper.model, batch.prompts[0][:shared]), shared
            reused = [0] + [shared] * (len(batch.prompts) - 1)
        if tokens < self.least:
            reused = [0] * len(batch.prompts)
        self._tell(batch, reused, emit)
        if found is not None and tokens >= self.least:
            ids = _plant(stepper, found, tokens, batch)
        logits = stepper.read(ids)
        if len(batch.prompts) == 1 and not reused[0]:
            self._keep(_beginning(batch.prompts[0], stepper))
        return logits

    def _longest(self, prompts: Sequence[tuple[int, ...]]) -> tuple[Beginning | None, int]:
        """The kept beginning that all prompts share for longest, and for how many tokens."""
        tokens = [common([kept.ids, *prompts], own=1) for kept in self.kept]
        if not tokens or max(tokens) < self.least:
            return None, 0
        best = self.kept.pop(tokens.index(max(tokens)))
        self._keep(best)
        return best, max(tokens)

    def _keep(self, beginning: Beginning) -> None:
        self.kept = [beginning, *self.kept][:MOST]

    def _read_alone(self, model: Any, ids: tuple[int, ...]) -> Beginning:
        """Rows of one batch share this: it is read once, and all of them take it over."""
        alone = Growing(model, [0])
        alone.read(torch.tensor([ids], device=model.device))
        beginning = _beginning(ids, alone)
        self._keep(beginning)
        return beginning

    def _tell(self, batch: Batch, reused: list[int], emit: Emit) -> None:
        now = time.perf_counter()
        for request, tokens in zip(batch.requests, reused, strict=True):
            emit(Admitted(now, request, tokens))
        self.reused += sum(reused)
        self.prompt_tokens += sum(len(ids) for ids in batch.prompts)


def common(rows: Sequence[tuple[int, ...]], own: int = 0) -> int:
    """Tokens with which all rows begin alike; every row but the first `own` has at least one more."""
    least = min([len(row) for row in rows[:own]] + [len(row) - 1 for row in rows[own:]])
    differing = (n for n in range(least) if any(row[n] != rows[0][n] for row in rows))
    return next(differing, least)


def _beginning(ids: tuple[int, ...], stepper: Cached) -> Beginning:
    """What the stepper has just read in its only row; copied, since a preallocated cache is written again."""
    span = slice(len(ids))
    layers = ((layer.keys[..., span, :].clone(), layer.values[..., span, :].clone()) for layer in stepper.cache.layers)
    return Beginning(ids, tuple(layers))


def _plant(stepper: Cached, beginning: Beginning, tokens: int, batch: Batch) -> torch.Tensor:
    """Copy the first `tokens` of a beginning into every row; the ids left to read, padded on the left.

    All rows hold the beginning in the same columns, so a shorter row's padding lies behind it.
    """
    rows = len(batch.prompts)
    for number, layer in enumerate(beginning.layers):
        keys, values = (tensor[..., :tokens, :].expand(rows, -1, -1, -1) for tensor in layer)
        stepper.cache.update(keys, values, number)
    stepper.length = stepper.lead = tokens
    left = [[0] * pad + list(ids[tokens:]) for pad, ids in zip(batch.pad, batch.prompts, strict=True)]
    return torch.tensor(left, device=stepper.model.device)
