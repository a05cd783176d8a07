"""Proposals: which configuration a search measures next, by Optuna."""

import warnings
from math import inf
from typing import Any

from engine.measure.pareto import AXES
from engine.run.neighbours import completed, key
from engine.run.prospects import LEAST, Prospects
from engine.run.study import REFUSED, Outcome, Values

TOLD_REFUSED = 100.0
"""The violation that a combination which cannot run is told with: larger than any that was measured."""
VAIN = 8
"""After so many turns of Optuna's sampler that brought nothing new, the most promising is measured all the same."""


class Proposals:
    """Asked and told in turn. The same seed and the same outcomes give the same proposals.

    The lane as it is comes first. From there on Optuna is given what is expected to gain most (see
    engine.run.prospects); where nothing is, it has its own turn: TPE samples all parameters jointly, those of a
    switch only while it is on.
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
        self.prospects = Prospects(search)
        self.told: list[tuple[Values, Outcome]] = []
        self.vain = 0
        self.trial: Any = None
        self.values: Values = {}

    def ask(self) -> Values:
        """The next configuration, as values by address."""
        if self.trial is None:
            if (chosen := self._chosen()) is not None:
                self.study.enqueue_trial(self._parameters(chosen))
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
        if (self.values, found) in self.told:  # TPE may ask for what it knows
            self.vain += 1
        else:
            self.vain = 0
            self.told.append((self.values, found))
        self.trial = None

    def heard(self, values: Values) -> int:
        """How often something was told of a configuration."""
        return sum(key(other) == key(values) for other, _ in self.told)

    def _chosen(self) -> Values | None:
        """None leaves it to Optuna."""
        if not self.told:
            return completed(self.choices, {})
        return self.prospects.best(self.told, LEAST if self.vain < VAIN else -inf)

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
