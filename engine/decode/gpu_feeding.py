"""The native step of a GPU feeds itself: several steps are one recording, and tokens leave by a mailbox."""

from typing import Any

import torch

from engine.decode.gpu import GpuStepper, Steps
from engine.decode.gpu_pass import Pass
from engine.decode.graphs import Choosing, recorded
from engine.decode.sampling import Sampling, broken
from engine.kernels.argmax import Feed, Mailbox, advance, argmax_advance, room

SLOTS = 64
"""Steps that the mailbox holds: more than are ever under way."""
SEVERAL = 4
"""Steps in the longer recording: between two recordings the GPU waits for some microseconds."""


class Feeding(Choosing):
    """One step whose input is the last one's output; the end of a step also fetches the next one's vectors."""

    def __init__(self, model: Any, steps: Steps, sampling: Sampling):
        context, weights = steps.context, steps.weights
        device = context.place.device
        super().__init__(sampling, device)
        self.model, self.steps = model, steps
        self.whole = Pass(weights, context, 1)
        self.box = Mailbox(SLOTS, context.rows, device)
        self.peaks = room(context.rows, len(weights.embedding), device)
        whole = {"dtype": torch.long, "device": device}
        self.feed = Feed(
            torch.zeros(context.rows, **whole), context.place, torch.zeros(1, **whole),
            torch.zeros(SLOTS, context.rows, **whole), self.box, weights.embedding,
            torch.zeros(context.rows, weights.embedding.shape[1], dtype=weights.dtype, device=device),
        )  # fmt: skip

    def reader(self, pad: list[int]) -> GpuStepper:
        """What reads the prompts into the cache that the step goes on in."""
        return GpuStepper(self.model, self.steps, pad)

    def start(self, tokens: torch.Tensor, place: int) -> None:
        """Begin after a prefill of `place` columns with the first tokens [rows, 1]."""
        self.feed.tokens.copy_(tokens.flatten())
        self.feed.hidden.copy_(self.feed.embedding[self.feed.tokens])
        self.feed.place.fill_(place)
        self.feed.step.zero_()
        if tokens.is_cuda:
            torch.cuda.synchronize()
        self.box.clear()

    def body(self) -> None:
        """One token for every row."""
        logits = self.whole.logits(self.whole.run(self.feed.hidden))
        if self.sampling.greedy:
            argmax_advance(logits, self.feed, self.peaks, self.banned)
        else:
            advance(self.choose(logits), self.feed)


class Runner:
    """Launches steps ahead of the host, which reads each token when it is there: as engine.decode.graphs.GraphStep."""

    def __init__(self, step: Feeding):
        self.step, self.launched = step, 0
        self.graph: Any = None
        self.several: Any = None

    def record(self, place: int, pad: list[int]) -> None:
        """Record one step, and several as one, after a prefill of `place` columns. Raises Refusal where that fails."""
        if self.graph or not self.step.feed.tokens.is_cuda:
            return
        self.step.start(self.step.feed.tokens[:, None], place)
        self.graph = recorded(self.step.body, self.step.generator)
        self.several = recorded(self._several, self.step.generator)

    def _several(self) -> None:
        for _ in range(SEVERAL):
            self.step.body()

    def start(self, tokens: torch.Tensor, place: int, pad: list[int]) -> None:
        self.step.start(tokens, place)
        self.launched = 0

    def replay(self) -> None:
        """One step: the recorded one, or where there is no GPU the plain function."""
        self.graph.replay() if self.graph else self.step.body()

    def launch_until(self, number: int, most: int) -> None:
        """Keep several steps under way beyond `number`; never more than `most` in all."""
        while self.launched < min(number + SEVERAL, most):
            several = self.several and most - self.launched >= SEVERAL
            self.several.replay() if several else self.replay()
            self.launched += SEVERAL if several else 1

    def read(self, number: int) -> list[int]:
        """The tokens of step `number`; waits until they are there."""
        tokens = self.step.box.read(number)
        if -1 in tokens:
            raise broken()
        return tokens
