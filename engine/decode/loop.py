"""The decode loop: prefill, then one step after another until every request has its tokens."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from engine.backends import Emit
from engine.decode.lookup import propose
from engine.decode.prompts import Batch
from engine.decode.stepper import Stepper
from engine.event import Request, Step
from engine.refusal import Refusal

Choose = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen and when a request ends. `stop` holds the end-of-text ids."""

    new_tokens: int
    stop: frozenset[int]
    fixed_length: bool
    temperature: float = 0.0
    seed: int = 0

    def chooser(self, device: torch.device) -> Choose:
        """A function from logits [..., vocabulary] to token ids [...]; the largest logit, or a sample."""
        banned = torch.tensor(sorted(self.stop), device=device) if self.fixed_length and self.stop else None
        generator = torch.Generator(device=device).manual_seed(self.seed)

        def choose(logits: torch.Tensor) -> torch.Tensor:
            if banned is not None:
                logits.index_fill_(-1, banned, float("-inf"))
            if self.temperature == 0:
                return logits.argmax(-1)
            shares = torch.softmax(logits.float() / self.temperature, -1)
            picked = torch.multinomial(shares.flatten(0, -2), 1, generator=generator)
            return picked.view(shares.shape[:-1])

        return choose


def _check(logits: torch.Tensor) -> None:
    if not torch.isfinite(logits[..., -1, :]).any(-1).all():
        raise Refusal(
            "The model's output is not a number (NaN or infinity): this lane is numerically broken.",
            "Choose a number format with more bits.",
        )


def decode(stepper: Stepper, batch: Batch, sampling: Sampling, emit: Emit) -> None:
    """Plain decoding: one token for each unfinished request in every step."""
    start = time.perf_counter()
    for request, ids in zip(batch.requests, batch.prompts, strict=True):
        emit(Request(start, request, len(ids)))
    device = stepper.model.device
    choose = sampling.chooser(device)
    logits = stepper.prefill(_padded(batch, device))
    _check(logits)
    tokens = choose(logits[:, -1:])
    going = set(range(len(batch.prompts)))
    for made in range(1, sampling.new_tokens + 1):
        values = tokens[:, 0].tolist()
        rows = sorted(going)
        emit(
            Step(
                time.perf_counter(),
                tuple(batch.first + row for row in rows),
                tuple((values[row],) for row in rows),
                cached=stepper.length,
            )
        )
        if not sampling.fixed_length:
            going -= {row for row in rows if values[row] in sampling.stop}
        if made == sampling.new_tokens or not going:
            return
        tokens = choose(stepper.step(tokens)[:, -1:])


def speculate(stepper: Stepper, batch: Batch, sampling: Sampling, knobs: dict[str, Any], emit: Emit) -> None:
    """Decoding with guesses from the text so far, checked in one step; wrong ones are rolled back.

    Every position is chosen from the model's own distribution, and a guess counts only while it equals that
    choice, so greedy text is unchanged and sampled text keeps its distribution (arXiv:2211.17192, a draft
    that puts all its probability on one token).
    """
    start = time.perf_counter()
    emit(Request(start, batch.first, batch.width))
    device = stepper.model.device
    choose = sampling.chooser(device)
    logits = stepper.prefill(_padded(batch, device))
    _check(logits)
    text = list(batch.prompts[0])
    fresh = choose(logits[:, -1:])[0].tolist()
    made, drafted, accepted = 0, 0, 0
    while True:
        fresh = _until_stop(fresh[: sampling.new_tokens - made], sampling)
        text += fresh
        made += len(fresh)
        now = time.perf_counter()
        emit(Step(now, (batch.first,), (tuple(fresh),), (), stepper.length, drafted, accepted))
        if made == sampling.new_tokens or (not sampling.fixed_length and fresh[-1] in sampling.stop):
            return
        guesses = propose(text, min(knobs["guesses"], sampling.new_tokens - made - 1), knobs["ngram"])
        drafted = len(guesses)
        fresh = _verify(stepper, text[-1], guesses, knobs["guesses"], choose)
        accepted = len(fresh) - 1


def _verify(stepper: Stepper, last: int, guesses: list[int], width: int, choose: Choose) -> list[int]:
    """The guesses that the model would have written, and its own next token."""
    filler = [0] * (width - len(guesses)) if guesses and stepper.fixed_width else []
    ids = torch.tensor([[last, *guesses, *filler]], device=stepper.model.device)
    chosen = choose(stepper.step(ids))[0].tolist()
    right = 0
    while right < len(guesses) and guesses[right] == chosen[right]:
        right += 1
    stepper.rollback(len(guesses) + len(filler) - right)
    return chosen[: right + 1]


def _until_stop(tokens: list[int], sampling: Sampling) -> list[int]:
    if sampling.fixed_length:
        return tokens
    ends = (place for place, token in enumerate(tokens) if token in sampling.stop)
    return tokens[: next(ends, len(tokens)) + 1]


def _padded(batch: Batch, device: torch.device) -> torch.Tensor:
    """Token ids [batch, width] with zeros on the left of shorter prompts (the mask hides them)."""
    rows = [[0] * (batch.width - len(ids)) + list(ids) for ids in batch.prompts]
    return torch.tensor(rows, device=device)
