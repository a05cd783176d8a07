"""How far one model's predictions are from another's: divergence, agreement and perplexity over the same text."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Quality:
    """Figures over the positions of a text, against a reference that read the same tokens.

    `kl_mean` and `kl_p99` are the Kullback-Leibler divergence KL(reference || model) of the next-token
    distributions in nats, its mean and its 99th percentile (the worst hundredth begins there). `top1` is the share
    of positions at which both prefer the same token. `perplexity_ratio` is the model's perplexity on the text over
    the reference's: 1.02 is two percent more surprised.
    """

    kl_mean: float
    kl_p99: float
    top1: float
    perplexity_ratio: float


def compare(logits: Any, reference: Any, ids: Any) -> Quality:
    """Compare two models that read the same text.

    `logits` and `reference` are torch tensors [tokens, vocabulary] on one device: row i is the prediction after
    token i of `ids` [tokens]. Raises ValueError for shapes that differ, and for a text of fewer than two tokens.
    """
    if logits.shape != reference.shape or len(ids) != len(logits) or len(ids) < 2:
        raise ValueError(f"{tuple(logits.shape)} and {tuple(reference.shape)} logits do not fit {len(ids)} tokens")
    mine, theirs = logits.double().log_softmax(-1), reference.double().log_softmax(-1)
    divergence = (theirs.exp() * (theirs - mine)).sum(-1)
    extra = (_seen(theirs, ids) - _seen(mine, ids)).mean()
    return Quality(
        kl_mean=float(divergence.mean()),
        kl_p99=float(divergence.quantile(0.99)),
        top1=float((mine.argmax(-1) == theirs.argmax(-1)).double().mean()),
        perplexity_ratio=float(extra.exp()),
    )


def _seen(logs: Any, ids: Any) -> Any:
    """Log probability of each token that really came next: [tokens - 1]."""
    return logs[:-1].gather(-1, ids[1:, None])[:, 0]
