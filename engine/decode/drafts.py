"""Drafts: where guesses come from, and how each kind takes back what it computed for a guess that was wrong."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch

from engine.decode.lookup import Index
from engine.decode.sampling import Sampling, best
from engine.decode.stepper import Stepper
from engine.models.drafts import TRAINED

Step = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Guesses:
    """`ids` [rows, n] and, for a draft that samples, the distributions [rows, n, vocabulary] they were drawn from.

    Without `shares` every guess had all of its draft's probability.
    """

    ids: torch.Tensor
    shares: torch.Tensor | None = None

    @property
    def count(self) -> int:
        return self.ids.shape[1]


class Draft(Protocol):
    """Proposes tokens for one request. `text` is always the whole text so far, prompt included."""

    kind: ClassVar[str]

    def begin(self, prompt: tuple[int, ...]) -> None:
        """A request starts: read its prompt."""

    def propose(self, text: list[int], count: int) -> Guesses:
        """At most `count` guesses for what follows `text`; maybe none."""

    def accepted(self, right: int) -> None:
        """The first `right` of the last guesses became text: forget the others."""

    def kv_bytes(self) -> int:
        """Bytes of keys and values that are the draft's own."""

    def facts(self) -> dict[str, Any]:
        """What it is, read from what it runs."""


class Lookup:
    """Guesses copied from the text so far; they cost next to nothing."""

    kind: ClassVar[str] = "prompt_lookup"

    def __init__(self, ngram: int, device: torch.device):
        self.index, self.device = Index(ngram), device

    def begin(self, prompt: tuple[int, ...]) -> None:
        self.index = Index(self.index.ngram)

    def propose(self, text: list[int], count: int) -> Guesses:
        self.index.extend(text[len(self.index.tokens) :])
        ids = self.index.propose(count)
        return Guesses(torch.tensor([ids], dtype=torch.long, device=self.device))

    def accepted(self, right: int) -> None:
        """Only text is indexed, so a wrong guess leaves no trace."""

    def kv_bytes(self) -> int:
        return 0

    def facts(self) -> dict[str, Any]:
        return {"kind": self.kind, "ngram": self.index.ngram}


class SecondModel:
    """A smaller or narrower model with its own cache writes the guesses, one after another."""

    kind: ClassVar[str] = "draft_model"

    def __init__(self, stepper: Stepper, sampling: Sampling, generator: torch.Generator, vocabulary: int):
        self.stepper, self.sampling = stepper, sampling
        self.generator, self.vocabulary = generator, vocabulary
        self.device = stepper.model.device
        self.read = 0

    def begin(self, prompt: tuple[int, ...]) -> None:
        self.stepper.prefill(torch.tensor([prompt], device=self.device))

    def propose(self, text: list[int], count: int) -> Guesses:
        self.read = len(text)
        unread = text[self.stepper.length :]
        if self.stepper.fixed_width:
            for token in unread[:-1]:
                self.stepper.step(torch.tensor([[token]], device=self.device))
            unread = unread[-1:]
        return self.chain(torch.tensor([unread], device=self.device), count)

    def chain(self, ids: torch.Tensor, count: int) -> Guesses:
        """`count` guesses, each read before the next is made; the last one is not read. ids: [rows, tokens]."""
        return chain(self.stepper.step, ids, count, self.sampling, self.generator, self.vocabulary)

    def accepted(self, right: int) -> None:
        self.stepper.rollback(max(0, self.stepper.length - self.read - right))

    def kv_bytes(self) -> int:
        return self.stepper.kv_bytes()

    def facts(self) -> dict[str, Any]:
        parameters = sum(weight.numel() for weight in self.stepper.model.parameters())
        return {"kind": self.kind, "parameters": parameters}


class Trained(SecondModel):
    """A draft that was trained for the model: its logits are those of the tokens `kept` [n] alone."""

    def __init__(self, *parts: Any, kept: torch.Tensor, facts: dict[str, Any]):
        super().__init__(*parts)
        self.kept, self.said = kept, facts
        banned = self.sampling.banned(kept.device)
        self.banned = None if banned is None else torch.isin(kept, banned).nonzero()[:, 0]

    def chain(self, ids: torch.Tensor, count: int) -> Guesses:
        """As any second model; the likeliest token is looked for among those that are kept, which are few."""
        if not self.sampling.greedy:
            return chain(self._every, ids, count, self.sampling, self.generator, self.vocabulary)
        made = []
        for _ in range(count):
            ids = self.kept[best(self.stepper.step(ids)[:, -1], self.banned)][:, None]
            made.append(ids)
        return Guesses(torch.cat(made, 1))

    def _every(self, ids: torch.Tensor) -> torch.Tensor:
        return widen(self.stepper.step(ids), self.kept, self.vocabulary)

    def facts(self) -> dict[str, Any]:
        return {"kind": self.kind, "draft": TRAINED, **self.said}


class Sharing:
    """A part of the model itself writes the guesses, into the cache that the whole model verifies with.

    What it writes there is taken back before the whole model reads the guesses, and writes these places anew.
    """

    kind: ClassVar[str]

    def __init__(self, part: Stepper, sampling: Sampling, generator: torch.Generator, vocabulary: int):
        self.part, self.sampling = part, sampling
        self.generator, self.vocabulary = generator, vocabulary

    def begin(self, prompt: tuple[int, ...]) -> None:
        """The whole model has read the prompt, and its part goes on from there."""

    def propose(self, text: list[int], count: int) -> Guesses:
        return self.chain(torch.tensor([text[-1:]], device=self.part.model.device), count)

    def chain(self, ids: torch.Tensor, count: int) -> Guesses:
        """`count` guesses, whose entries in the shared cache are gone afterwards. ids: [rows, 1]."""
        guesses = chain(self.part.step, ids, count, self.sampling, self.generator, self.vocabulary)
        self.part.rollback(count)
        return guesses

    def accepted(self, right: int) -> None:
        """The shared cache is rolled back by who verified."""

    def kv_bytes(self) -> int:
        return 0


class EarlyExit(Sharing):
    """The model's own first layers. Source: LayerSkip, arXiv:2404.16710."""

    kind: ClassVar[str] = "early_exit"

    def facts(self) -> dict[str, Any]:
        return {"kind": self.kind, "layers": self.part.ran}


class Coarse(Sharing):
    """The model's own weights, packed in fewer bits.

    Every guess sees what the whole model wrote for the text, and rough entries for the guesses before it only.
    """

    kind: ClassVar[str] = "draft_model"

    def propose(self, text: list[int], count: int) -> Guesses:
        self.part.length = len(text) - 1  # the newest token is the first that no one has read
        return super().propose(text, count)

    def facts(self) -> dict[str, Any]:
        return {"kind": self.kind, "draft": "self", "shared_cache": True}


def widen(logits: torch.Tensor, kept: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Logits [..., n] of the tokens `kept` [n] as logits of all, [..., vocabulary]: minus infinity for the others."""
    return logits.new_full((*logits.shape[:-1], vocabulary), float("-inf")).index_copy_(-1, kept, logits)


def chain(
    step: Step, ids: torch.Tensor, count: int, sampling: Sampling, generator: torch.Generator, vocabulary: int
) -> Guesses:
    """Let `step` write `count` tokens after `ids` [rows, tokens]; none beyond the `vocabulary` of who verifies."""
    banned = sampling.banned(ids.device)
    made, shares = [], []
    for _ in range(count):
        logits = step(ids)[:, -1, :vocabulary]
        if sampling.greedy:
            ids = best(logits, banned)[:, None]
        else:
            share = sampling.shares(logits, banned)
            ids = torch.multinomial(share, 1, generator=generator)
            shares.append(torch.nn.functional.pad(share, (0, vocabulary - share.shape[-1])))
        made.append(ids)
    return Guesses(torch.cat(made, 1), torch.stack(shares, 1) if shares else None)
