"""Speculative rounds of a GPU's native step that feed themselves: guess, check and take back, all in one recording."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from engine.backends import Emit
from engine.decode.drafts import Lookup
from engine.decode.gpu import GpuStepper, Steps
from engine.decode.gpu_pass import WIDEST, Pass
from engine.decode.graphs import Choosing, recorded
from engine.decode.loop import enter, padded
from engine.decode.prompts import Batch
from engine.decode.sampling import Sampling, broken, check_finite
from engine.decode.speculate import Tally, until_stop
from engine.event import Step
from engine.kernels.argmax import Feed, Mailbox, advance
from engine.plan import Plan

SLOTS = 16
"""Rounds that the mailbox holds: more than are ever under way."""
AHEAD = 2
"""Rounds under way while the host looks at the newest."""
MOST_GUESSES = WIDEST - 1
"""The check reads one token more than there are guesses, and the decode kernels take so many."""

Guesser = Callable[["Rounds"], tuple[torch.Tensor, torch.Tensor]]
"""Guesses for what follows a text: ids [guesses], and how many of them are meant [1]; no value is read on the host."""


class Copied:
    """Prompt lookup on the device: what followed the last few tokens the last time, as decode.lookup finds it."""

    def __init__(self, ngram: int):
        self.ngram = ngram

    def __call__(self, rounds: "Rounds") -> tuple[torch.Tensor, torch.Tensor]:
        text, columns, place = rounds.text, rounds.columns, rounds.context.place
        alike, run = torch.ones_like(columns, dtype=torch.bool), torch.zeros_like(columns)
        for back in range(self.ngram):
            there = (columns >= back) & (place >= back)
            newest = text.index_select(0, (place - back).clamp(min=0))
            alike = alike & there & (text[(columns - back).clamp(min=0)] == newest)
            run = run + alike
        run = run * (columns < place)  # an occurrence that something followed
        found = (run * len(text) + columns).argmax(keepdim=True)  # of the longest, the last
        known = (place - found).clamp(max=rounds.guesses) * (run.index_select(0, found) > 0)
        ids = text[(found + 1 + rounds.order[:-1]).clamp(max=len(text) - 1)]
        return ids, known


class Drafted:
    """The model's own weights in fewer bits guess one token after another, over the same cache."""

    def __init__(self, steps: Steps):
        self.draft = Pass(steps.weights, steps.context, 1)

    def __call__(self, rounds: "Rounds") -> tuple[torch.Tensor, torch.Tensor]:
        place, made = rounds.context.place, []
        token = rounds.text.index_select(0, place)
        for _ in range(rounds.guesses):
            logits = self.draft.logits(self.draft.run(self.draft.weights.embedding[token]))
            token = rounds.best(logits)
            made.append(token)
            place.add_(1)
        place.sub_(rounds.guesses)
        return torch.cat(made), torch.full_like(place, rounds.guesses)


class Rounds(Choosing):
    """One round for one text: guesses, their check in one pass, and the place moved on by what was right.

    `body` is an ordinary function, recorded as one CUDA graph. `text` [columns] holds the tokens, the newest at the
    context's place. What the round found goes to the mailbox: the model's own choices [guesses + 1], how many guesses
    were right, and how many there were. Source: Leviathan et al. 2023, arXiv:2211.17192, the greedy case.
    """

    def __init__(self, steps: Steps, sampling: Sampling, guesses: int, propose: Guesser):
        context = steps.context
        device = context.place.device
        super().__init__(sampling, device)
        self.steps, self.context, self.guesses, self.propose = steps, context, guesses, propose
        self.check = Pass(steps.weights, context, guesses + 1)
        self.columns = torch.arange(context.length + guesses + 1, device=device)
        self.order = torch.arange(guesses + 1, device=device)
        self.text = torch.zeros_like(self.columns)
        self.box = Mailbox(SLOTS, guesses + 3, device)
        room, counter = torch.zeros(guesses + 3, dtype=torch.long, device=device), torch.zeros_like(context.place)
        self.feed = Feed(room, counter, counter.clone(), room.repeat(SLOTS, 1), self.box)
        self.launched = 0
        self.graph: Any = None

    def best(self, logits: torch.Tensor) -> torch.Tensor:
        """The likeliest tokens [n] of logits [n, vocabulary]; -1 where a logit is not a number, or none is finite."""
        if self.banned is not None:
            logits = logits.index_fill(-1, self.banned, float("-inf"))
        peak, token = logits.max(-1)
        return token.masked_fill(~peak.isfinite(), -1)

    def body(self) -> None:
        place, text = self.context.place, self.text
        guesses, known = self.propose(self)
        ids = torch.cat((text.index_select(0, place), guesses)).clamp(min=0)
        chosen = self.best(self.check.logits(self.check.run(self.steps.weights.embedding[ids])))
        kept = (chosen[:-1] == guesses) & (self.order[:-1] < known)
        right = kept.long().cumprod(0).sum(0, keepdim=True)
        text.index_copy_(0, place + 1 + self.order, chosen.clamp(min=0))
        advance(torch.cat((chosen, right, known)), self.feed)
        place.add_(right + 1)

    def record(self) -> None:
        """Record the round once, at the beginning of an empty text. Raises Refusal where that fails."""
        if self.graph is None and self.text.is_cuda:
            self._begin(())
            self.graph = recorded(self.body)

    def start(self, text: Sequence[int]) -> None:
        """Begin after a prompt that has been read and one token more."""
        self._begin(text)
        self.box.clear()
        self.launched = 0

    def _begin(self, text: Sequence[int]) -> None:
        if self.text.is_cuda:
            torch.cuda.synchronize()  # rounds that were thrown away have ended
        self.text.zero_()
        self.text[: len(text)] = torch.tensor(text, dtype=torch.long)
        self.context.place.fill_(max(0, len(text) - 1))
        self.feed.step.zero_()
        if self.text.is_cuda:
            torch.cuda.synchronize()

    def launch_until(self, number: int, place: int) -> None:
        """Start rounds up to round `number`, which begins at `place`, and further ones as far as the cache is sure."""
        while self.launched < number + AHEAD:
            before = self.launched - number
            if before > 0 and place + (before + 1) * (self.guesses + 1) > self.context.length:
                return
            self.graph.replay() if self.graph else self.body()
            self.launched += 1

    def read(self, number: int) -> tuple[list[int], int, int]:
        """What the model chose in a round up to its first own token, how many were guessed right, and how many at all.

        Raises Refusal where that is not a number.
        """
        *chosen, right, known = self.box.read(number)
        if -1 in chosen[: right + 1]:
            raise broken()
        return chosen[: right + 1], right, known

    def facts(self) -> dict[str, Any]:
        """What is guessed from, read from what is recorded."""
        return {"ngram": self.propose.ngram} if isinstance(self.propose, Copied) else {}


def rounds_of(plan: Plan, stepper: GpuStepper, own: Any, sampling: Sampling) -> Rounds | None:
    """Rounds to keep for all turns over this stepper's cache; None where the host has to look on.

    It has to for a sampled text, for draft lengths that adapt themselves, and for another model's guesses; `own` are
    the model's own weights packed once more, where they guess.
    """
    knobs = plan.speculation
    if not sampling.greedy or knobs["adaptive"] or knobs["guesses"] > MOST_GUESSES:
        return None
    if knobs["kind"] == Lookup.kind:
        return Rounds(stepper.steps, sampling, knobs["guesses"], Copied(knobs["ngram"]))
    return Rounds(stepper.steps, sampling, knobs["guesses"], Drafted(own.stepper(stepper).steps)) if own else None


def rounds_decode(rounds: Rounds, stepper: GpuStepper, batch: Batch, emit: Emit, tally: Tally) -> None:
    """Decode one request by replays, reading each round's tokens as they arrive: as engine.decode.speculate.speculate.

    How long guessing takes is not told apart: it is part of the recording.
    """
    enter(batch, emit)
    tally.schedule = "constant"
    (request,), (most,), (prompt,) = batch.requests, batch.lengths, batch.prompts
    rounds.record()
    logits = stepper.prefill(padded(batch, stepper.model.device))
    check_finite(logits)
    fresh, known, right, number = rounds.choose(logits[:, -1]).tolist(), 0, 0, 0
    made, place = 0, len(prompt)
    rounds.start((*prompt, *fresh))
    while True:
        fresh = until_stop(fresh, rounds.sampling)[: most - made]
        used, made = min(right, len(fresh)), made + len(fresh)
        emit(Step(time.perf_counter(), (request,), (tuple(fresh),), (), place, known, used))
        tally.see(known, used)
        if made == most or (not rounds.sampling.fixed_length and fresh[-1] in rounds.sampling.stop):
            stepper.length = place
            return
        rounds.launch_until(number, place)
        fresh, right, known = rounds.read(number)
        room = most - made - 1
        tally.ask(None, min(rounds.check.tokens - 1, room), room)
        number, place = number + 1, place + right + 1
