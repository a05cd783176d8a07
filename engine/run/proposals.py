"""Proposals: which configuration a search measures next, by Optuna."""

import warnings
from collections.abc import Iterator
from math import log
from typing import Any

from engine.measure.pareto import AXES
from engine.run.search_space import Choice, refusal
from engine.run.study import DONE, REFUSED, Outcome, Values

TOLD_REFUSED = 100.0
"""The violation that a combination which cannot run is told with: larger than any that was measured."""


class Proposals:
    """Asked and told in turn. The same seed and the same outcomes give the same proposals.

    The lane as it is comes first, then every change of one thing, then the best of them together; from there on
    Optuna's TPE samples all parameters jointly, those of a switch only while it is on.
    """

    def __init__(self, search: Any):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.search, self.better = search, AXES[search.axis].better
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # multivariate and group are announced as experimental
            sampler = optuna.samplers.TPESampler(
                seed=search.seed, multivariate=True, group=True, n_startup_trials=len(search.choices)
            )
        direction = "maximize" if self.better == "higher" else "minimize"
        self.study = optuna.create_study(sampler=sampler, direction=direction)
        self.seeds = self._seeds()
        self.singles: list[tuple[Values, Outcome]] = []
        self.trial: Any = None
        self.values: Values = {}

    def ask(self) -> Values:
        """The next configuration, as values by address."""
        if self.trial is None:
            if (seed := next(self.seeds, None)) is not None:
                self.study.enqueue_trial(self._parameters(seed))
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
        self.singles.append((self.values, found))
        self.trial = None

    def _suggest(self) -> Values:
        values: Values = {}
        for choice in self.search.choices:
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
        return {c.address: c.values.index(values[c.address]) for c in self.search.choices if c.address in values}

    def _seeds(self) -> Iterator[Values]:
        start = self._plain({})
        yield start
        free = [choice for choice in self.search.choices if not choice.when]
        for choice in free:
            for value in choice.values[1:]:
                yield self._plain({choice.address: value})
        yield self._combined(start, free)

    def _plain(self, changes: Values) -> Values:
        """The lane as it is, with changes; a switch that is on brings its own values."""
        values: Values = {}
        for choice in self.search.choices:
            if not choice.when or values.get(choice.when):
                values[choice.address] = changes.get(choice.address, choice.values[0])
        return values

    def _combined(self, start: Values, free: list[Choice]) -> Values:
        """From the largest single gain down, whatever still keeps the limits by itself and can run with the rest."""
        base = next(found for values, found in self.singles if values == start)
        gains = sorted(self._gains(base), key=lambda gain: -gain[0])
        changes: Values = {}
        for gain, address, value in gains:
            wanted = {**changes, address: value}
            if gain > 0 and address not in changes and not refusal(self.search.experiment, self._plain(wanted)):
                changes = wanted
        return self._plain(changes)

    def _gains(self, base: Outcome) -> Iterator[tuple[float, str, Any]]:
        """How much each single change gained, as a logarithm; changes that alone break a limit are left out."""
        for values, found in self.singles:
            changed = [c for c in self.search.choices if not c.when and values[c.address] != c.values[0]]
            reached, before = found.value(self.search.axis), base.value(self.search.axis)
            if len(changed) != 1 or found.state != DONE or not reached or not before:
                continue
            gain = log(reached / before) * (1 if self.better == "higher" else -1)
            if max(self.search.missed(found)) <= 0 or max(self.search.missed(base)) > 0:
                yield gain, changed[0].address, values[changed[0].address]
