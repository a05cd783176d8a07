"""Public: what a server that anybody may use allows, and the sentences that refuse the rest.

The page offers no more than this, but it is no boundary: plans, jobs and workers ask here themselves.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from engine.models.catalogue import MODELS
from engine.models.resolve import RANDOM
from engine.refusal import Refusal

OWN = "On a machine of your own Pitlane has no such limit."
KEPT = 10_000
"""Visitors that are remembered."""


@dataclass(frozen=True)
class Limits:
    """Of one experiment, of one study (`points`), and of the `starts` that one visitor has in `window_s` seconds.

    `tokens` are a request's, `whole` those of all lanes, rounds and requests together; `letters` are those of all
    prompts and the system prompt; `parameters` is the largest model, `on_gpu` where there is a GPU. `crowd` is what
    `starts` is for one address, behind which a whole class may sit, and `run_s` how long a run may take.
    """

    lanes: int = 4
    rounds: int = 8
    tokens: int = 256
    requests: int = 16
    whole: int = 12_000
    letters: int = 8_000
    parameters: float = 2e9
    on_gpu: float = 9e9
    points: int = 24
    starts: int = 12
    crowd: int = 120
    window_s: float = 600.0
    run_s: float = 600.0


LIMITS = Limits()


def public() -> bool:
    """Whether this is a public server: PITLANE_PUBLIC=1, or a Space that does not say PITLANE_PUBLIC=0."""
    said = os.environ.get("PITLANE_PUBLIC", "")
    return said == "1" or (said != "0" and bool(os.environ.get("SPACE_ID")))


def sentence(gpu: bool) -> str:
    """One line for the page."""
    size = (LIMITS.on_gpu if gpu else LIMITS.parameters) / 1e9
    return (
        f"This is a public server: models of the catalogue up to {size:.0f}B parameters, {LIMITS.lanes} lanes, "
        f"{LIMITS.rounds} rounds, {LIMITS.tokens} new tokens and {LIMITS.requests} requests at most, "
        f"{LIMITS.starts} runs in {LIMITS.window_s / 60:.0f} minutes. Your own machine has no limits."
    )


def offered(gpu: bool) -> list[str]:
    """The ids of the catalogue's models that may run: small enough, and open to everybody."""
    most = LIMITS.on_gpu if gpu else LIMITS.parameters
    return [name for name, model in MODELS.items() if model.parameters <= most and not model.gated]


def check_model(name: str, gpu: bool) -> None:
    """Raises Refusal for a model that a public server does not run; looks at nothing but the name."""
    if not public():
        return
    asked = name.strip()
    known = asked.removeprefix(RANDOM) if asked.startswith(RANDOM) else asked.lower()
    if known not in MODELS:
        why = f"This is a public server, which runs models of its catalogue only, not {asked[:60]!r}."
        raise Refusal(why, f"Choose one of {', '.join(offered(gpu))}. {OWN}")
    if known not in offered(gpu):
        gated = "needs an account on the hub" if MODELS[known].gated else "is too large"
        raise Refusal(f"{known} {gated}, so this public server does not run it.",
                      f"Choose one of {', '.join(offered(gpu))}. {OWN}")  # fmt: skip


def check_workload(workload: Any) -> None:
    """Raises Refusal for a workload (engine.spec.Workload) that is too much for a public server."""
    if not public():
        return
    letters = sum(map(len, workload.prompts)) + len(workload.system)
    _most("new tokens", workload.max_new_tokens, LIMITS.tokens)
    _most("requests", workload.count, LIMITS.requests)
    _most("letters of prompts", letters, LIMITS.letters)


def check(experiment: Any, gpu: bool) -> None:
    """Raises Refusal for an experiment (engine.spec.Experiment) that is too much, or of other models."""
    if not public():
        return
    for lane in experiment.lanes.values():
        for name in (experiment.model, *(other for opt in lane.opts.values() for other in opt.models())):
            check_model(name, gpu)
    _most("lanes", len(experiment.lanes), LIMITS.lanes)
    _most("rounds", experiment.rounds, LIMITS.rounds)
    check_workload(experiment.workload)
    each = experiment.workload.count * experiment.workload.max_new_tokens
    _most("tokens in all lanes, rounds and requests", len(experiment.lanes) * experiment.rounds * each, LIMITS.whole)


def check_points(total: int) -> None:
    """Raises Refusal for a study of too many points."""
    if public():
        _most("points in a study", total, LIMITS.points)


def _most(what: str, asked: int, most: int) -> None:
    if asked > most:
        raise Refusal(f"This is a public server: {most:,} {what} are the most, not {asked:,}.", f"Choose fewer. {OWN}")


class TooOften(Refusal):
    """Somebody started enough for now."""


@dataclass
class Door:
    """Thread-safe. Counts who starts how much; `address` says where they come from, `now` is a clock in seconds."""

    limits: Limits = LIMITS
    address: Callable[[], str] = str
    now: Callable[[], float] = time.monotonic
    seen: dict[str, deque[float]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self, owner: str) -> None:
        """Count one start. Raises TooOften, and counts nothing, where there were enough in the last minutes."""
        if not public():
            return
        address = self.address()
        asked = [(f"visitor {owner}", self.limits.starts)]
        asked += [(f"address {address}", self.limits.crowd)] if address else []
        now = self.now()
        with self.lock:
            starts = [self._recent(key, now) for key, _ in asked]
            for recent, (_, most) in zip(starts, asked, strict=True):
                if len(recent) >= most:
                    wait = max(1, round(recent[0] + self.limits.window_s - now))
                    minutes = self.limits.window_s / 60
                    why = f"This is a public server: {most} runs in {minutes:.0f} minutes are the most for one visitor."
                    raise TooOften(why, f"Try again in {wait} seconds. {OWN}")
            for recent in starts:
                recent.append(now)

    def _recent(self, key: str, now: float) -> deque[float]:
        recent = self.seen.pop(key, deque())
        while recent and recent[0] < now - self.limits.window_s:
            recent.popleft()
        self.seen[key] = recent  # the last one to come is the last to be forgotten
        while len(self.seen) > KEPT:
            del self.seen[next(iter(self.seen))]
        return recent
