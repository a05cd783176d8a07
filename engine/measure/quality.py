"""How far one model's predictions are from another's: divergence, agreement and perplexity over the same text."""

import math
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from engine.measure.metrics import percentile
from engine.refusal import Refusal

MANY = 32
"""Predictions compared at once: few enough that their doubles stay small, also for a vocabulary of 256,000."""


@dataclass(frozen=True)
class Quality:
    """Figures over the positions of a text, against a reference that read the same tokens.

    `kl_mean` and `kl_p99` are the Kullback-Leibler divergence KL(reference || model) of the next-token
    distributions in nats, its mean and its 99th percentile (the worst hundredth begins there; None below a hundred
    positions). `top1` is the share of positions at which both prefer the same token. `perplexity_ratio` is the
    model's perplexity on the text over the reference's: 1.02 is two percent more surprised. `tokens` counts the
    positions.
    """

    kl_mean: float
    kl_p99: float | None
    top1: float
    perplexity_ratio: float
    tokens: int


@dataclass(frozen=True)
class Figure:
    """One figure of quality as tables show it: the field of Quality, and the `scale` that gives its unit."""

    name: str
    title: str
    unit: str
    better: Literal["higher", "lower"]
    definition: str
    scale: float = 1.0

    def read(self, lane: dict[str, Any], part: str = "text") -> float | None:
        """The figure of a lane of a result, over the bundled text or its own answers; None where unknown."""
        value = ((lane.get("quality") or {}).get(part) or {}).get(self.name)
        return None if value is None else value * self.scale


OVER = "The unquantized model reads the same English text of 2,000 tokens, and at every token"
FIGURES = (
    Figure("kl_mean", "KL divergence", "nats", "lower", f"{OVER} the two predictions are compared: how far this lane's "
           "probabilities are from the model's own, on average. 0 is no difference; 0.01 is hardly seen in the text."),
    Figure("kl_p99", "KL divergence, worst 1 %", "nats", "lower", f"{OVER} the KL divergence is taken: one in a "
           "hundred is larger than this (p99)."),
    Figure("top1", "Same next token", "%", "higher", f"{OVER} both say which token they prefer: how often that is the "
           "same one.", 100.0),
    Figure("perplexity_ratio", "Perplexity ratio", "×", "lower", f"{OVER} the true one's probability is noted: this "
           "lane's perplexity (how surprised it is) over the model's own. 1.02 is 2 % more surprised."),
)  # fmt: skip
"""The rows of quality in every table. None of them is known for a lane that loses nothing."""


def price(lane: dict[str, Any]) -> str:
    """What a lossy lane of a result pays for its speed, as a sentence after a space; empty for a lossless one."""
    quality = lane.get("quality")
    if not quality:
        return ""
    if not (text := quality.get("text")):
        return f" What lane {lane['name']} loses is unknown: {quality['why']}"
    return (
        f" Lane {lane['name']} is at a KL divergence of {nats(text['kl_mean'])} from {quality['reference']}: "
        f"it prefers the same next token at {100 * text['top1']:.0f} % of positions."
    )


def nats(value: float) -> str:
    """Two digits, and never a nought that is not one."""
    return "less than 0.0001 nats" if 0 < value < 1e-4 else f"{value:.2g} nats" if value < 1 else f"{value:.1f} nats"


class Comparison:
    """Two models' predictions of the same tokens, taken in piece by piece: two numbers a position are kept."""

    def __init__(self) -> None:
        self.divergence: list[float] = []
        self.surprise: list[float] = []
        self.agreed = 0

    def add(self, logits: Any, reference: Any, following: Any) -> None:
        """Take in `logits` and `reference`, torch tensors [positions, vocabulary] on one device.

        `following` [positions] are the tokens that really came next. Raises ValueError for shapes that differ.
        """
        if logits.shape != reference.shape or len(following) != len(logits):
            raise ValueError(f"{logits.shape} and {reference.shape} logits do not fit {len(following)} tokens")
        for start in range(0, len(logits), MANY):
            self._add(*(part[start : start + MANY] for part in (logits, reference, following)))

    def _add(self, logits: Any, reference: Any, following: Any) -> None:
        mine, theirs = logits.double(), reference.double()
        own, others = mine.logsumexp(-1), theirs.logsumexp(-1)
        shares = (theirs - others[:, None]).exp_()
        gaps = (theirs - mine).masked_fill_(shares == 0, 0)  # what cannot be said at all has a logit of -inf
        self.divergence += (shares.mul_(gaps).sum(-1) - others + own).tolist()
        seen = [part.gather(-1, following[:, None])[:, 0] for part in (mine, theirs)]
        self.surprise += (seen[1] - others - seen[0] + own).tolist()
        self.agreed += int((mine.argmax(-1) == theirs.argmax(-1)).sum())

    def quality(self) -> Quality:
        """The figures over all positions so far. Raises Refusal where predictions are not numbers."""
        found = Quality(
            kl_mean=max(0.0, fmean(self.divergence)),  # of a model from itself rounding may leave -1e-17
            kl_p99=percentile(self.divergence, 0.99),
            top1=self.agreed / len(self.divergence),
            perplexity_ratio=_exp(fmean(self.surprise)),
            tokens=len(self.divergence),
        )
        if not all(map(math.isfinite, (found.kl_mean, found.perplexity_ratio))):
            raise Refusal(
                "The predictions are not numbers (NaN or infinity).", "Choose a number format with more bits."
            )
        return found


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
