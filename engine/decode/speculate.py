"""Speculative decoding: guess several tokens, check all of them in one step, keep those that are right."""

import time
from dataclasses import dataclass

import torch

from engine.backends import Emit
from engine.decode.draft_clock import DraftClock
from engine.decode.drafts import Draft, Guesses
from engine.decode.loop import enter, padded
from engine.decode.prompts import Batch
from engine.decode.rejection import agree, judge
from engine.decode.sampling import Sampling, best, check_finite
from engine.decode.stepper import Stepper
from engine.event import Step


@dataclass
class Tally:
    """How often a draft was asked, in how many steps it guessed, what it guessed, and how much of that became text.

    `draft_s` are the seconds that guessing took in all, None where they are not told apart from the check.
    `guesses` are the most that a step was to hold, of as many as the texts had `room` for; `schedule` says whether
    their number is "constant" or "adaptive".
    """

    asked: int = 0
    steps: int = 0
    drafted: int = 0
    accepted: int = 0
    draft_s: float | None = 0.0
    guesses: int = 0
    room: int = 0
    schedule: str | None = None

    def ask(self, seconds: float | None, guesses: int, room: int) -> None:
        """A draft was asked for so many `guesses`, where the text ends after `room` more and one token."""
        self.asked += 1
        self.guesses, self.room = max(self.guesses, guesses), max(self.room, room)
        self.draft_s = None if seconds is None else round((self.draft_s or 0.0) + seconds, 6)

    def see(self, drafted: int, accepted: int) -> None:
        self.steps += drafted > 0
        self.drafted += drafted
        self.accepted += accepted


class DraftLength:
    """How many tokens to guess next: always `most`, or what the last guesses have earned.

    The adaptive rule is that of transformers' assisted generation: two more when all guesses were right, one fewer
    when one was wrong, never fewer than one; here it starts in the middle and never exceeds `most`.
    Source: Gante 2023, Assisted Generation (Hugging Face); transformers, num_assistant_tokens_schedule "heuristic".
    """

    def __init__(self, most: int, adaptive: bool):
        self.most, self.adaptive = most, adaptive
        self.now = (most + 1) // 2 if adaptive else most

    @property
    def schedule(self) -> str:
        return "adaptive" if self.adaptive else "constant"

    def held_to(self, count: int, room: int) -> int:
        """The most guesses that a step is held to, where `count` were asked for and the text had `room` for so many.

        A constant number is seen in what is asked for; one that adapts itself may never come to its bound.
        """
        return max(count, min(self.most, room)) if self.adaptive else count

    def learn(self, drafted: int, accepted: int) -> None:
        """Take note of one step; one without guesses teaches nothing."""
        if self.adaptive and drafted:
            self.now = min(self.most, self.now + 2) if accepted == drafted else max(1, self.now - 1)


class Verifier:
    """The whole model: reads the guesses in one step, keeps those it stands by, and takes the others back.

    Greedy, a guess is kept while it equals the model's own choice, so the text is that of plain decoding. Sampled,
    guesses go through rejection sampling, so the text has the model's own distribution.
    """

    def __init__(self, stepper: Stepper, sampling: Sampling, generator: torch.Generator, width: int):
        self.stepper, self.sampling = stepper, sampling
        self.generator, self.width = generator, width
        self.banned = sampling.banned(stepper.model.device)

    def check(self, last: torch.Tensor, guesses: Guesses) -> tuple[torch.Tensor, torch.Tensor]:
        """Read the `last` tokens [rows, 1] and their guesses: how many are right, and what follows, [rows] each.

        A compiled step knows two widths only: one token, and one with all guesses; fewer are filled up.
        """
        count = guesses.count
        filler = self.width - count if count and self.stepper.fixed_width else 0
        ids = torch.cat((last, guesses.ids, guesses.ids.new_zeros(len(last), filler)), 1)
        return self.choose(self.stepper.step(ids)[:, : count + 1], guesses)

    def choose(self, logits: torch.Tensor, guesses: Guesses) -> tuple[torch.Tensor, torch.Tensor]:
        """The verdict on the guesses by the model's logits [rows, n + 1, vocabulary]."""
        if self.sampling.greedy:
            return agree(best(logits, self.banned), guesses.ids)
        return judge(self.sampling.shares(logits, self.banned), guesses.ids, guesses.shares, self.generator)

    def rollback(self, guesses: Guesses, right: int) -> None:
        """Forget the guesses after the first `right` ones, and what filled them up."""
        read = self.width if guesses.count and self.stepper.fixed_width else guesses.count
        self.stepper.rollback(read - right)


def speculate(verifier: Verifier, draft: Draft, length: DraftLength, batch: Batch, emit: Emit, tally: Tally) -> None:
    """Decode one request with guesses, counting in `tally` what became of them.

    Both models read the prompt before the first token. Source: Leviathan et al. 2023, arXiv:2211.17192.
    """
    enter(batch, emit)
    tally.schedule = length.schedule
    (request,), (most,), (prompt,) = batch.requests, batch.lengths, batch.prompts
    ids = padded(batch, verifier.stepper.model.device)
    logits = verifier.stepper.prefill(ids)
    check_finite(logits)
    draft.begin(prompt)
    nothing = guesses = Guesses(ids[:, :0])
    text, end, clock = list(prompt), len(prompt) + most, DraftClock(ids.device)
    fresh, right = _kept(guesses, *verifier.choose(logits, guesses))
    while True:
        fresh = until_stop(fresh, verifier.sampling)
        text += fresh
        used = min(right, len(fresh))
        emit(Step(time.perf_counter(), (request,), (tuple(fresh),), (), verifier.stepper.length, guesses.count, used))
        tally.see(guesses.count, used)
        if len(text) == end or (not verifier.sampling.fixed_length and fresh[-1] in verifier.sampling.stop):
            return
        room = end - len(text) - 1
        count = min(length.now, room)
        with clock:
            guesses = draft.propose(text, count) if count else nothing
        fresh, right = _kept(guesses, *verifier.check(ids.new_tensor([text[-1:]]), guesses))
        if count:
            tally.ask(clock.read(), length.held_to(count, room), room)
        verifier.rollback(guesses, right)
        if guesses.count:
            draft.accepted(right)
            length.learn(guesses.count, right)


def _kept(guesses: Guesses, right: torch.Tensor, following: torch.Tensor) -> tuple[list[int], int]:
    """The tokens that one step gives a single request, and how many of them were guessed; one trip to the host."""
    *ids, count, last = torch.cat((guesses.ids[0], right, following)).tolist()
    return [*ids[:count], last], count


def until_stop(tokens: list[int], sampling: Sampling) -> list[int]:
    """The tokens up to an end mark, and with it; all of them where the length is fixed."""
    if sampling.fixed_length:
        return tokens
    ends = (place for place, token in enumerate(tokens) if token in sampling.stop)
    return tokens[: next(ends, len(tokens)) + 1]
