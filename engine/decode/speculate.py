"""Speculative decoding: guess several tokens, check all of them in one step, keep those that are right."""

import time
from typing import Any

import torch

from engine.backends import Emit
from engine.decode.lookup import propose
from engine.decode.loop import enter, padded
from engine.decode.prompts import Batch
from engine.decode.sampling import Choose, Sampling, check_finite
from engine.decode.stepper import Stepper
from engine.event import Step


def speculate(stepper: Stepper, batch: Batch, sampling: Sampling, knobs: dict[str, Any], emit: Emit) -> None:
    """Decoding with guesses from the text so far, checked in one step; wrong ones are rolled back.

    Every position is chosen from the model's own distribution, and a guess counts only while it equals that
    choice, so greedy text is unchanged and sampled text keeps its distribution (arXiv:2211.17192, a draft
    that puts all its probability on one token).
    """
    enter(batch, emit)
    device = stepper.model.device
    choose = sampling.chooser(device)
    logits = stepper.prefill(padded(batch, device))
    check_finite(logits)
    (request,), (length,) = batch.requests, batch.lengths
    text = list(batch.prompts[0])
    fresh = choose(logits[:, -1:])[0].tolist()
    made, drafted, accepted = 0, 0, 0
    while True:
        fresh = _until_stop(fresh[: length - made], sampling)
        text += fresh
        made += len(fresh)
        now = time.perf_counter()
        emit(Step(now, (request,), (tuple(fresh),), (), stepper.length, drafted, accepted))
        if made == length or (not sampling.fixed_length and fresh[-1] in sampling.stop):
            return
        guesses = propose(text, min(knobs["guesses"], length - made - 1), knobs["ngram"])
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
