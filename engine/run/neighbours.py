"""Neighbours: the one change of the best configuration so far that promises most."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from engine.run.search_space import Choice
from engine.run.study import Values

RIDGE = 0.05
"""How strongly an effect is held at nothing until measurements say otherwise."""


def promising(
    choices: Sequence[Choice], measured: Sequence[tuple[Values, float]], tried: Iterable[Values]
) -> list[Values]:
    """Untried configurations one change away from the best of `measured`, the most promising first.

    `measured` holds configurations with a score of which more is better, logarithms of speeds for instance, so that
    effects add up: what a change promises is its effect in a ridge regression over all that was measured.
    """
    best = max(measured, key=lambda row: row[1])[0]
    known = {key(values) for values in tried}
    near = [values for values in _around(choices, best) if key(values) not in known]
    columns = {pair: place for place, pair in enumerate(sorted({p for values, _ in measured for p in _pairs(values)}))}
    effects = _fitted(columns, measured)
    return sorted(near, key=lambda values: -float(_row(columns, values) @ effects))


def key(values: Values) -> str:
    """The same text for the same configuration."""
    return json.dumps(values, sort_keys=True)


def completed(choices: Sequence[Choice], values: Values) -> Values:
    """What is set, with the lane's own values for the rest; what belongs to a switch counts only while that is on."""
    whole: Values = {}
    for choice in choices:
        if not choice.when or whole.get(choice.when):
            whole[choice.address] = values.get(choice.address, choice.values[0])
    return whole


def _around(choices: Sequence[Choice], best: Values) -> list[Values]:
    return [
        completed(choices, {**best, choice.address: value})
        for choice in choices
        if choice.address in best
        for value in choice.values
        if value != best[choice.address]
    ]


def _pairs(values: Values) -> list[tuple[str, str]]:
    return [(address, json.dumps(value)) for address, value in values.items()]


def _row(columns: dict[tuple[str, str], int], values: Values) -> np.ndarray:
    """One for every value that is set, and one for what they all have in common; the new counts as nothing."""
    row = np.zeros(len(columns) + 1)
    row[[columns[pair] for pair in _pairs(values) if pair in columns]] = 1.0
    row[-1] = 1.0
    return row


def _fitted(columns: dict[Any, int], measured: Sequence[tuple[Values, float]]) -> np.ndarray:
    rows = np.array([_row(columns, values) for values, _ in measured])
    held = RIDGE * np.eye(rows.shape[1])
    held[-1, -1] = 1e-6
    return np.linalg.solve(rows.T @ rows + held, rows.T @ np.array([score for _, score in measured]))
