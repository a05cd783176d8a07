"""Acceptance: what became of guesses, in all and by their place in a draft."""

from collections.abc import Iterable
from typing import Any

from engine.measure.timeline import Timeline


def speculation(lines: Iterable[Timeline]) -> dict[str, Any] | None:
    """The guesses of some turns together; None where nothing was guessed.

    `acceptance_rate` is accepted / drafted, `acceptance_length` the tokens that a step with guesses gave on average
    (the accepted ones and the model's own), and `accepted_by_position` the share of guesses that were accepted at
    the first place of a draft, at the second, and so on. What was drafted is None, and so is what follows from it,
    where an engine tells only what it accepted.
    Definitions as in vLLM's metrics of speculative decoding.
    """
    steps = [step for line in lines for step in line.guessed]
    if not steps:
        return None
    accepted = sum(right for _, right in steps)
    drafted = sum(count for count, _ in steps)
    known = drafted >= accepted and all(count for count, _ in steps)
    return {
        "drafted": drafted if known else None,
        "accepted": accepted,
        "acceptance_rate": accepted / drafted if known else None,
        "acceptance_length": 1 + accepted / len(steps) if known else None,
        "accepted_by_position": by_position(steps) if known else None,
    }


def by_position(steps: list[tuple[int, int]]) -> list[float]:
    """For each place in a draft, accepted there / drafted there; `steps` holds (drafted, accepted) of each step."""
    deepest = max(count for count, _ in steps)
    return [
        sum(right > place for _, right in steps) / sum(count > place for count, _ in steps) for place in range(deepest)
    ]
