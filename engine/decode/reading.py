"""Reading a given text: the logits that a lane's modules and its kind of cache predict each of its tokens with."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from engine.decode.caches import growing_cache
from engine.decode.sinks import Windowed
from engine.decode.stepper import Growing, Stepper
from engine.plan import Plan

PIECE = 128
"""Tokens read at once where the cache loses nothing: the embedded model reads 530 a second so, and 430 in 64s."""
FINE = 32
"""Tokens read at once where it does: within a piece nothing has been packed or forgotten yet."""


def reader(model: Any, plan: Plan) -> Stepper:
    """A stepper whose cache loses what the plan's loses; where a lossless one lies makes no difference here."""
    if plan.window:
        return Windowed(model, [0], **plan.window)
    return Growing(model, [0], growing_cache(model.config, plan))


def read(stepper: Stepper, plan: Plan, beginning: Sequence[int], rest: Sequence[int]) -> Iterator[torch.Tensor]:
    """Logits that predict each token of `rest` after `beginning`: float32 [positions, vocabulary], piece by piece.

    `beginning` is read at once, as a prompt is, and `rest` through the cache.
    """
    ids = torch.tensor([[*beginning, *rest[:-1]]], device=stepper.model.device)
    yield stepper.prefill(ids[:, : len(beginning)])[0].float()
    size = FINE if plan.window or plan.kv_bits else PIECE
    for piece in ids[:, len(beginning) :].split(size, dim=1) if len(rest) > 1 else ():
        yield stepper.step(piece)[0].float()
