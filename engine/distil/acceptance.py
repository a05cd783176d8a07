"""Acceptance: how far a draft's guesses carry on five kinds of text, checked by the real loop of guesses."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from engine.decode.drafting import Drafting
from engine.decode.loop import decode
from engine.decode.prompts import Batch, encode
from engine.decode.sampling import Sampling
from engine.decode.stepper import Growing, keep_all
from engine.decode.trained import load
from engine.event import Step
from engine.models.drafts import Trained
from engine.plan import Plan

LIGHTHOUSE = (
    "The lighthouse stands on a rock at the mouth of the bay. Every evening the keeper climbs the one hundred and "
    "twelve steps to the lamp, trims the wick, and lights it. Every morning he climbs the same one hundred and "
    "twelve steps to put it out."
)
TEXTS = {
    "a summary": f"Summarize the following text in two sentences:\n{LIGHTHOUSE}",
    "code": "Write a Python function that returns the second largest number of a list, with a docstring.",
    "a poem": "Write a poem about a night train that crosses a frozen lake.",
    "a question": "Why do leaves change their colour in autumn?",
    "a text to copy": f"Repeat this text word for word:\n{LIGHTHOUSE}",
}
"""None of them is among the prompts that a draft learns from."""


@dataclass(frozen=True)
class Accepted:
    """What became of guesses on one text: `length` are tokens a step with guesses, the model's own included.

    `rate` is the share of guesses that were right, `gain` how many times as fast the text came as without guesses,
    and `same` whether it was the same text.
    """

    text: str
    length: float
    rate: float
    gain: float
    same: bool


def measure(whole: Any, found: Trained, tokenizer: Any, guesses: int, tokens: int) -> list[Accepted]:
    """Load the draft and decode each text greedily, with guesses and without; the gains are those of one run."""
    vocabulary = min(len(tokenizer), whole.config.vocab_size)
    encoded = encode(tokenizer, tuple(TEXTS.values()), True, vocabulary)
    stop = frozenset({tokenizer.eos_token_id})
    drafting = Drafting()
    drafting.trained, drafting.model = found, load(found.path, whole, whole.dtype)
    runs = [_one(whole, drafting, Batch((0,), (ids,), (tokens,)), Sampling(stop, True), guesses) for ids in encoded]
    return [Accepted(text, *run) for text, run in zip(TEXTS, runs, strict=True)]


@torch.inference_mode()
def _one(
    whole: Any, drafting: Drafting, batch: Batch, sampling: Sampling, guesses: int
) -> tuple[float, float, float, bool]:
    plan = Plan("transformers", "", speculation={"kind": "draft_model", "guesses": guesses, "adaptive": False})
    drafting.start()

    def plainly(emit: Callable) -> None:
        decode(Growing(whole, [0], keep_all(whole.config)), batch, sampling, emit)

    def guessing(emit: Callable) -> None:
        drafting.turn(plan, Growing(whole, [0], keep_all(whole.config)), batch, sampling, 0, emit)

    (slow, text), (fast, guessed) = _timed(plainly), _timed(guessing)
    tally = drafting.tally
    return 1 + tally.accepted / tally.steps, tally.accepted / tally.drafted, slow / fast, text == guessed


def _timed(run: Callable) -> tuple[float, list[int]]:
    """Seconds from the first token to the last, and all tokens."""
    events: list[Any] = []
    run(events.append)
    steps = [event for event in events if isinstance(event, Step)]
    return time.perf_counter() - steps[0].t, [token for step in steps for token in step.tokens[0]]
