"""Effects: what configurations that were not measured will probably come to, told by those that were."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from engine.run.search_space import Choice
from engine.run.study import Values

CHANGE = 0.25
"""How much a value of one thing is expected to matter, in logarithms."""
TOGETHER = 0.1
"""How much more or less a change is expected to do beside everything else that is set."""
NOISE = 0.02
"""How far a repeated measurement is off, in logarithms."""
ALIKE = 0.6
"""How far a number's effect carries over to the next one in its list."""
BELIEVED, DOUBT = 0.5, 0.3
"""The share of a foretold gain that is expected to come true, and how far that share may be off."""
ANYTHING = 10.0
"""How far the level of everything may lie from nothing."""

Heard = tuple[Values, float, float]
"""A configuration, the logarithm of what it came to, and how far that may be off."""


def beliefs(
    choices: Sequence[Choice],
    measured: Sequence[Heard],
    others: Sequence[Values],
    foretold: Sequence[float | None],
) -> list[NormalDist]:
    """What each of `others` will come to, with how sure that is.

    `measured` holds logarithms, so that effects add up: a Gaussian process over what each value
    does, what each pair of values does together, and the share of what is foretold that comes true. `foretold` holds
    a logarithm for each measured configuration and then for each of the others; one that is not known counts as that
    of the first.
    Source: Duvenaud et al. 2011, "Additive Gaussian processes", arXiv:1112.4394.
    """
    count = len(measured)
    codes = _codes(choices, [*(values for values, _, _ in measured), *others])
    told = np.array([0.0 if None in (one, foretold[0]) else one - foretold[0] for one in foretold])
    covariance = _covariance(choices, codes, codes[:count], np.outer(told, told[:count]))
    heard = np.array([value for _, value, _ in measured]) - BELIEVED * told[:count]
    weights = np.linalg.solve(covariance[:count] + np.diag([off**2 for _, _, off in measured]), covariance[count:].T)
    means = BELIEVED * told[count:] + weights.T @ heard
    explained = np.einsum("ij,ji->i", covariance[count:], weights)
    spreads = np.sqrt(np.maximum(_variances(choices, told[count:]) - explained, 0.0) + NOISE**2)
    return [NormalDist(mean, spread) for mean, spread in zip(means.tolist(), spreads.tolist(), strict=True)]


def _codes(choices: Sequence[Choice], several: Sequence[Values]) -> np.ndarray:
    """Each value by its place; what a switch that is off leaves unset counts as the lane's own."""
    return np.array(
        [[c.values.index(values[c.address]) if c.address in values else 0 for c in choices] for values in several]
    )


def _covariance(choices: Sequence[Choice], rows: np.ndarray, columns: np.ndarray, told: np.ndarray) -> np.ndarray:
    """How alike configurations are expected to come out: by the values they share, alone and in pairs."""
    apart = np.abs(rows[:, None, :] - columns[None, :, :])
    ordered = np.array([choice.ordered for choice in choices])
    alike = np.where(ordered, ALIKE**apart, apart == 0)
    once = alike.sum(axis=2)
    pairs = (once**2 - (alike**2).sum(axis=2)) / 2
    return _summed(len(choices), once, pairs, told)


def _variances(choices: Sequence[Choice], told: np.ndarray) -> np.ndarray:
    count = len(choices)
    return _summed(count, count, count * (count - 1) / 2, told**2)


def _summed(count: int, once: np.ndarray | int, pairs: np.ndarray | float, told: np.ndarray) -> np.ndarray:
    return ANYTHING**2 + CHANGE**2 * once + TOGETHER**2 / max(1, count - 1) * pairs + DOUBT**2 * told
