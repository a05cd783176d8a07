"""The plain decode loop: prefill, then one step after another until every request has its tokens."""

import time

import torch

from engine.backends import Emit
from engine.decode.prompts import Batch
from engine.decode.sampling import Sampling, check_finite
from engine.decode.stepper import Stepper
from engine.event import Request, Step


def enter(batch: Batch, emit: Emit) -> None:
    """Say that requests begin, unless they were announced when they arrived."""
    if batch.arrived is None:
        now = time.perf_counter()
        for request, ids in zip(batch.requests, batch.prompts, strict=True):
            emit(Request(now, request, len(ids)))


class Going:
    """Which rows of a batch still want tokens."""

    def __init__(self, batch: Batch, sampling: Sampling):
        self.batch = batch
        self.stop = frozenset() if sampling.fixed_length else sampling.stop
        self.rows = list(range(len(batch.prompts)))
        self.requests = tuple(batch.requests)
        self.made = 0

    def step(self, values: list[int], cached: int) -> Step:
        """The step in which row r received values[r]; rows that are done by it go."""
        self.made += 1
        tokens = tuple([(values[row],) for row in self.rows])
        event = Step(time.perf_counter(), self.requests, tokens, cached=cached)
        rows = [row for row in self.rows if values[row] not in self.stop and self.made < self.batch.lengths[row]]
        if len(rows) < len(self.rows):
            self.rows, self.requests = rows, tuple(self.batch.requests[row] for row in rows)
        return event


def decode(stepper: Stepper, batch: Batch, sampling: Sampling, emit: Emit) -> None:
    """Plain decoding: one token for each unfinished request in every step.

    A static batch goes on until its longest request is done; what the others compute meanwhile is thrown away.
    """
    enter(batch, emit)
    device = stepper.model.device
    choose = sampling.chooser(device)
    logits = stepper.prefill(padded(batch, device))
    check_finite(logits)
    going = Going(batch, sampling)
    for values in stepper.write(choose(logits[:, -1:]), sampling, choose):
        emit(going.step(values, stepper.length))
        if not going.rows:
            return


def padded(batch: Batch, device: torch.device) -> torch.Tensor:
    """Token ids [batch, width] with zeros on the left of shorter prompts (the mask hides them)."""
    rows = [[0] * pad + list(ids) for pad, ids in zip(batch.pad, batch.prompts, strict=True)]
    return torch.tensor(rows, device=device)
