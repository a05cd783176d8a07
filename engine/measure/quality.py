"""How far one model's predictions are from another's: divergence, agreement and perplexity over the same text."""

import math
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from engine.measure.metrics import percentile
from engine.refusal import Refusal

ROWS = 32
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


class Comparison:
    """Two models' predictions of the same tokens, taken in piece by piece: two numbers a position are kept."""

    def __init__(self) -> None:
        self.divergence: list[float] = []
        self.surprise: list[float] = []
        self.agreed = 0

    def add(self, logits: Any, reference: Any, following: Any) -> None:
        """Take in `logits` and `reference`, torch tensors [positions, vocabulary] on one device.

        `following` [positions] are the tokens that really came next; those of the last positions may be missing.
        """
        for start in range(0, len(logits), ROWS):
            self._add(*(part[start : start + ROWS] for part in (logits, reference, following)))

    def _add(self, logits: Any, reference: Any, following: Any) -> None:
        mine, theirs = logits.double(), reference.double()
        own, others = mine.logsumexp(-1), theirs.logsumexp(-1)
        shares = (theirs - others[:, None]).exp_()
        gaps = (theirs - mine).masked_fill_(shares == 0, 0)  # what cannot be said at all has a logit of -inf
        self.divergence += (shares.mul_(gaps).sum(-1) - others + own).tolist()
        known = len(following)
        seen = [part[:known].gather(-1, following[:, None])[:, 0] for part in (mine, theirs)]
        self.surprise += (seen[1] - others[:known] - seen[0] + own[:known]).tolist()
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


def compare(logits: Any, reference: Any, ids: Any) -> Quality:
    """Compare two models that read the same text.

    `logits` and `reference` are torch tensors [tokens, vocabulary] on one device: row i is the prediction after
    token i of `ids` [tokens]. Raises ValueError for shapes that differ, and for a text of fewer than two tokens.
    """
    if logits.shape != reference.shape or len(ids) != len(logits) or len(ids) < 2:
        raise ValueError(f"{tuple(logits.shape)} and {tuple(reference.shape)} logits do not fit {len(ids)} tokens")
    comparison = Comparison()
    comparison.add(logits, reference, ids[1:])
    return comparison.quality()
