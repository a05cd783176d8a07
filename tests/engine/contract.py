"""What the contract tests share: every configuration of every optimization, and a lane run in this process."""

import atexit
import itertools
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import torch

from engine.backends import Session
from engine.decode.generate import GenerateSession
from engine.decode.modules import ModuleSession
from engine.event import Failed, Step
from engine.measure.machine import machine
from engine.plan import Plan
from engine.refusal import Refusal
from engine.registry import optimizations
from engine.run.pool import Pool
from engine.run.runner import Run
from engine.spec import Experiment, Lane, Workload, plan_for

SESSIONS = {"transformers": ModuleSession, "generate": GenerateSession}
TEXT = "The lamp is lit. abcabcabc The lamp is lit, and the keeper of the lamp is glad, and the lamp is "
PROMPTS = tuple(TEXT[start : start + 1 + 4 * start] for start in range(20))
"""Twenty prompts of different lengths, some of which repeat themselves."""
DEAR = ("torch_compile", "attention.flex")
"""What compiles for many seconds: run with fewer models and pairs."""
KEPT: dict[tuple, Session] = {}
"""The newest session: lanes that load the same take turns in it, as they do in a warm worker."""

Case = tuple[str, dict[str, Any]]
Tokens = dict[int, list[int]]


def configurations() -> list[Case]:
    """Every optimization with its defaults, and once with each other choice of a knob that has choices."""
    found: list[Case] = []
    for name, part in optimizations().items():
        found.append((name, {}))
        for knob, field in part.model_fields.items():
            if get_origin(field.annotation) is Literal:
                choices = get_args(field.annotation)
                found += [(name, {knob: choice}) for choice in choices if choice != field.default]
            elif field.annotation is bool:
                found.append((name, {knob: not field.default}))
    return found


def lossless() -> list[Case]:
    return [case for case in configurations() if optimizations()[case[0]].lossless]


def defaults(cases: Iterable[Case]) -> list[Case]:
    return [case for case in cases if not case[1]]


def ids(case: Case) -> str:
    return "-".join([case[0], *(f"{knob}.{value}" for knob, value in case[1].items())])


def dear(case: Case) -> bool:
    name, knobs = case
    return name in DEAR or any(f"{name}.{value}" in DEAR for value in knobs.values())


def full(lane: Lane) -> Lane:
    """The same lane in float32 unless it chooses another format, as a processor does by itself and a GPU does not."""
    return lane.model_copy(update={"opts": {"precision": optimizations()["precision"](dtype="float32"), **lane.opts}})


def settled(lane: Lane, model: Path | str) -> Plan | None:
    """The lane's plan, or None where it is refused, which must be in one sentence."""
    try:
        return plan_for(full(lane), str(model), machine())
    except Refusal as refusal:
        assert refusal.why.endswith("."), refusal.why
        assert "\n" not in refusal.why
        return None


def generate(
    model: Path | str, lane: Lane, tokens: int = 12, prompts: tuple[str, ...] = PROMPTS, **workload: Any
) -> Tokens:
    """Prepare and run one lane; the tokens of every request. What was asked for must have run."""
    lane = full(lane)
    plan = plan_for(lane, str(model), machine())
    asked = Workload(prompts=prompts, max_new_tokens=tokens, **workload)
    if plan.replicas > 1 or plan.tensor_parallel > 1:
        return _apart(str(model), lane, asked)
    session = KEPT.pop((plan.backend, plan.lease()), None) or _fresh(plan)
    KEPT.clear()
    KEPT[plan.backend, plan.lease()] = session
    session.recheck = lambda shape: plan_for(lane, str(model), machine(), shape)
    made: Tokens = {}
    session.prepare(plan, asked, lambda event: None)
    session.run(plan, asked, lambda event: collect(event, made))
    assert plan.unmet(session.effective()) == []
    return made


def _fresh(plan: Plan) -> Session:
    """As in a worker of its own: what this process compiled for another lane (with its attention, say) is forgotten."""
    torch.compiler.reset()
    return SESSIONS[plan.backend]()


def collect(event: Any, made: Tokens) -> None:
    """Add what a step brought to the tokens of its requests."""
    for request, new in zip(event.requests, event.tokens, strict=True) if isinstance(event, Step) else ():
        made.setdefault(request, []).extend(new)


def _apart(model: str, lane: Lane, workload: Workload) -> Tokens:
    """A lane of several processes, through the runner."""
    experiment = Experiment(model=model, rounds=1, workload=workload, lanes={"A": lane})
    made: Tokens = {}
    for record in Run(experiment, _pool()).records():
        assert not isinstance(record.event, Failed), record.event.why
        unmet = getattr(record.event, "effective", {}).get("unmet")
        assert not unmet, unmet
        if record.round == 0:
            collect(record.event, made)
    return made


@cache
def _pool() -> Pool:
    """Its workers stay warm for the next lane that loads the same, and end with this process."""
    pool = Pool()
    atexit.register(pool.close)
    return pool


def pairs(cases: list[Case]) -> list[tuple[Case, Case]]:
    """Every two cases of different optimizations."""
    return [pair for pair in itertools.combinations(cases, 2) if pair[0][0] != pair[1][0]]
