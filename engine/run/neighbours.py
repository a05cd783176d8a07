"""Neighbours: configurations as values by address, all of a small space, and those that are one change apart."""

import json
from collections.abc import Iterable, Sequence
from itertools import product
from math import prod

from engine.run.search_space import Choice
from engine.run.study import Values


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


def whole(choices: Sequence[Choice], most: int) -> list[Values]:
    """Every configuration of a space that has at most so many combinations; none of a larger one."""
    if prod(len(choice.values) for choice in choices) > most:
        return []
    addresses = [choice.address for choice in choices]
    combined = product(*(choice.values for choice in choices))
    return distinct(completed(choices, dict(zip(addresses, values, strict=True))) for values in combined)


def around(choices: Sequence[Choice], values: Values) -> list[Values]:
    """What is one change away."""
    return [
        completed(choices, {**values, choice.address: value})
        for choice in choices
        if choice.address in values
        for value in choice.values
        if value != values[choice.address]
    ]


def distinct(several: Iterable[Values]) -> list[Values]:
    """Each configuration once, in the order in which they first appear."""
    return list({key(values): values for values in several}.values())
