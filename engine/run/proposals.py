"""Proposals: which configuration a search measures next, by Optuna."""

import warnings
from collections.abc import Iterator
from math import log
from typing import Any

from engine.measure.pareto import AXES
from engine.run.neighbours import completed, promising
from engine.run.search_space import refusal
from engine.run.study import DONE, REFUSED, Outcome, Values

TOLD_REFUSED = 100.0
"""The violation that a combination which cannot run is told with: larger than any that was measured."""
PENALTY = 3.0
"""What a missed limit costs in the score of a configuration, for each factor e by which it is missed."""


class Proposals:
    """Asked and told in turn. The same seed and the same outcomes give the same proposals.

    The lane as it is comes first, then every change of one thing, then the best of them together. From there on the
    most promising neighbour of the best so far and Optuna's TPE take turns: TPE samples all parameters jointly, those
    of a switch only while it is on.
    """

    def __init__(self, search: Any):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.search, self.choices, self.better = search, search.choices, AXES[search.axis].better
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # multivariate and group are announced as experimental
            sampler = optuna.samplers.TPESampler(
                seed=search.seed, multivariate=True, group=True, n_startup_trials=len(search.choices)
            )
        direction = "maximize" if self.better == "higher" else "minimize"
        self.study = optuna.create_study(sampler=sampler, direction=direction)
        self.planned = self._plan()
        self.told: list[tuple[Values, Outcome]] = []
        self.trial: Any = None
        self.values: Values = {}

    def ask(self) -> Values:
        """The next configuration, as values by address."""
        if self.trial is None:
            if (planned := next(self.planned)) is not None:
                self.study.enqueue_trial(self._parameters(planned))
            self.trial = self.study.ask()
            self.values = self._suggest()
        return self.values

    def tell(self, found: Outcome) -> None:
        """What came of the configuration that was asked for last."""
        missed = [TOLD_REFUSED] if found.state == REFUSED else self.search.missed(found)
        for number, far in enumerate(missed):
            self.trial.set_constraint(str(number), far)
        value = found.value(self.search.axis)
        worst = 0.0 if self.better == "higher" else 1e12
        self.study.tell(self.trial, worst if value is None else value)
        self.told.append((self.values, found))
        self.trial = None

    def _suggest(self) -> Values:
        values: Values = {}
        for choice in self.choices:
            if choice.when and not values.get(choice.when):
                continue
            last = len(choice.values) - 1
            if choice.ordered:
                place = self.trial.suggest_int(choice.address, 0, last)
            else:
                place = self.trial.suggest_categorical(choice.address, list(range(last + 1)))
            values[choice.address] = choice.values[place]
        return values

    def _parameters(self, values: Values) -> dict[str, int]:
        """Values as Optuna knows them: by their place in the list."""
        return {c.address: c.values.index(values[c.address]) for c in self.choices if c.address in values}

    def _plan(self) -> Iterator[Values | None]:
        """What to measure in which order; None leaves it to Optuna."""
        yield completed(self.choices, {})
        for choice in self.choices:
            if not choice.when:
                yield from (completed(self.choices, {choice.address: value}) for value in choice.values[1:])
        yield self._combined()
        while True:
            yield self._neighbour()
            yield None

    def _combined(self) -> Values:
        """From the largest single gain down, whatever still keeps the limits by itself and can run with the rest."""
        changes: Values = {}
        for gain, address, value in sorted(self._gains(), key=lambda gain: -gain[0]):
            wanted = {**changes, address: value}
            if gain > 0 and address not in changes and not self._refusal(completed(self.choices, wanted)):
                changes = wanted
        return completed(self.choices, changes)

    def _gains(self) -> Iterator[tuple[float, str, Any]]:
        """How much each single change gained; one that alone breaks a limit, which the lane keeps, is left out."""
        (_, base), *others = self.told
        before, missed = self._speed(base), max(self.search.missed(base)) > 0
        for values, found in others:
            changed = [c for c in self.choices if not c.when and values[c.address] != c.values[0]]
            after = self._speed(found)
            single = len(changed) == 1 and None not in (before, after)
            if single and (missed or max(self.search.missed(found)) <= 0):
                yield after - before, changed[0].address, values[changed[0].address]

    def _neighbour(self) -> Values | None:
        """The best neighbour that can run; None where nothing ended well yet or none is left."""
        scored = [(values, score) for values, found in self.told if (score := self._score(found)) is not None]
        near = promising(self.choices, scored, [values for values, _ in self.told]) if scored else []
        return next((values for values in near if not self._refusal(values)), None)

    def _score(self, found: Outcome) -> float | None:
        speed = self._speed(found)
        return (
            None
            if speed is None
            else speed - PENALTY * sum(min(1.0, max(0.0, far)) for far in self.search.missed(found))
        )

    def _speed(self, found: Outcome) -> float | None:
        """The logarithm of what is to be made best, of which more is better."""
        value = found.value(self.search.axis)
        if found.state != DONE or not value:
            return None
        return log(value) if self.better == "higher" else -log(value)

    def _refusal(self, values: Values) -> str:
        return refusal(self.search.experiment, values)
