"""Requests that are decoded with and without guesses, over tiny models of random weights."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from engine.decode.drafting import Drafting
from engine.decode.loop import decode
from engine.decode.prompts import Batch
from engine.decode.sampling import Sampling
from engine.decode.stepper import Growing, Preallocated, keep_all
from engine.event import Step
from engine.plan import Plan

GREEDY = Sampling(frozenset(), True)
ROOM = 192
KNOBS = {
    "prompt_lookup": {"ngram": 2},
    "draft_model": {},
    "early_exit": {"layers": 1},
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Models this small only lose by sharing their work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def plan(kind: str, cache: str = "dynamic", guesses: int = 4, adaptive: bool = False) -> Plan:
    speculation = {"kind": kind, "guesses": guesses, "adaptive": adaptive, **KNOBS[kind]}
    return Plan("transformers", "m", cache=cache, speculation=speculation)


def stepper(model: Any, cache: str) -> Any:
    if cache == "dynamic":
        return Growing(model, [0], keep_all(model.config))
    return Preallocated(model, [0], keep_all(model.config, ROOM), None)


def near(model: Any, noise: float = 0.02) -> Any:
    """The same model with weights a little off: it guesses some tokens right and some wrong."""
    other = copy.deepcopy(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(torch.randn_like(weight) * noise)
    return other


def calm(model: Any, share: float = 0.2) -> Any:
    """The same model with a last layer that says little, so that its first layers often decide."""
    last = next(part for part in model.modules() if isinstance(part, torch.nn.ModuleList))[-1]
    with torch.no_grad():
        for weight in last.parameters():
            if weight.dim() > 1:
                weight.mul_(share)
    return model


def tokens(steps: list[Step]) -> list[int]:
    return [token for step in steps for token in step.tokens[0]]


@torch.inference_mode()
def plain(model: Any, prompt: tuple[int, ...], length: int, sampling: Sampling = GREEDY) -> list[int]:
    """What the plain loop writes over the cache that transformers would choose."""
    events: list[Any] = []
    decode(Growing(model, [0]), Batch((0,), (prompt,), (length,)), sampling, events.append)
    return tokens([event for event in events if isinstance(event, Step)])


class Guessing:
    """One session's drafting over a model, turn after turn."""

    def __init__(self, model: Any, asked: Plan, second: Any = None):
        self.model, self.plan = model, asked
        self.drafting = Drafting()
        self.drafting.model = second

    @torch.inference_mode()
    def steps(self, prompt: tuple[int, ...], length: int, sampling: Sampling = GREEDY) -> list[Step]:
        events: list[Any] = []
        batch = Batch((0,), (prompt,), (length,))
        self.drafting.turn(self.plan, stepper(self.model, self.plan.cache), batch, sampling, ROOM, events.append)
        return [event for event in events if isinstance(event, Step)]


def sampled(seed: int, temperature: float = 1.0) -> Sampling:
    return replace(GREEDY, temperature=temperature, seed=seed)
