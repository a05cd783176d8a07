"""Estimate: a lane's memory and its best speed, told from its model's shape before anything is loaded."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args, get_origin

import psutil

from engine.measure.ceiling import planned, predicted
from engine.measure.fit import Fit, check, fit, size
from engine.measure.machine import Machine, machine
from engine.models.architecture import Architecture, known
from engine.models.catalogue import MODELS
from engine.optimizations import Optimization
from engine.plan import Plan
from engine.refusal import Refusal
from engine.registry import optimizations
from engine.spec import Lane, Workload, plan_for

LETTERS = 4.2
"""Letters of English that a token stands for. Measured: 4.4 on the presets' prose with SmolLM2's words."""
TEMPLATE = 34
"""Tokens that a chat template puts around a prompt, its own system message among them."""
ON_GPU = 0.97
"""What a driver leaves of a GPU's memory."""


def asked(workload: Workload) -> tuple[float, float]:
    """About how many tokens the longest prompt has, and how many are written after it."""
    letters = max(len(prompt) for prompt in workload.prompts) + len(workload.system)
    return letters / LETTERS + TEMPLATE * workload.chat, workload.max_new_tokens


def room(plan: Plan, here: Machine, idle: float = 0.0) -> float | None:
    """Bytes that a lane may take here; `idle` are those of warm workers that would make room."""
    if plan.device == "cuda":
        return here.gpus[0].memory_bytes * ON_GPU if here.gpus else None
    return min(psutil.virtual_memory().available + idle, here.memory_bytes)


def estimate(plan: Plan, shape: Architecture, workload: Workload, idle: float = 0.0) -> dict[str, Any]:
    """JSON-ready: `fit` (bytes) and `ceiling` (both phases), and the `tok_per_s` that all requests get at best.

    `guesses` says that this is so only where every guess is right.
    """
    here = machine()
    figures = here.to_dict()["measured"]
    use = planned(plan, *asked(workload), workload.count)
    fitted = fit(plan, shape, use, (figures or {}).get("process_bytes"), room(plan, here, idle))
    ceiling = predicted(plan, shape, use, figures)
    tpot = ceiling["decode"]["predicted_ms"]
    rate = 1000 / tpot * use.rows * plan.replicas if tpot else None
    return {"fit": fitted.to_dict(), "ceiling": ceiling, "tok_per_s": rate, "guesses": bool(use.guesses)}


def refuse(lane: Lane, plan: Plan, workload: Workload, idle: float = 0.0) -> None:
    """Raises Refusal where the lane cannot fit, with the next smaller setting that does."""
    fitted = _fit(plan, workload, idle)
    if fitted and fitted.fits is False:
        check(fitted, _smaller(lane, plan, workload, idle))


def needed(plan: Plan, workload: Workload) -> float | None:
    """Bytes that a lane will take at most, its processes included; None where the model's shape is unknown."""
    fitted = _fit(plan, workload, 0.0)
    return fitted.needed if fitted else None


def _fit(plan: Plan, workload: Workload, idle: float) -> Fit | None:
    if plan.shape is None:
        return None
    here = machine()
    process = (here.to_dict()["measured"] or {}).get("process_bytes")
    return fit(plan, plan.shape, planned(plan, *asked(workload), workload.count), process, room(plan, here, idle))


def _smaller(lane: Lane, plan: Plan, workload: Workload, idle: float) -> str:
    """What changes least and fits: fewer bits, fewer requests at once, fewer tokens, or another model."""
    options = [(fitted, said) for said, other in _narrower(lane) if (fitted := _tried(other, plan, workload, idle))]
    if options:
        fitted, said = max(options, key=lambda option: option[0].needed)
        return f"{said}: {size(fitted.needed)}."
    tokens = workload.max_new_tokens
    while tokens > 1:
        tokens //= 2
        less = workload.model_copy(update={"max_new_tokens": tokens})
        if (fitted := _fit(plan, less, idle)) and fitted.fits:
            return f"Generate {tokens} tokens: {size(fitted.needed)}."
    return _smaller_model(plan, workload, idle)


def _smaller_model(plan: Plan, workload: Workload, idle: float) -> str:
    for model in sorted(MODELS.values(), key=lambda one: -one.parameters):
        other = _fit(replace(plan, model=model.id, shape=known(model.id)), workload, idle)
        if other and other.fits:
            return f"Choose a smaller model, {model.id}: {size(other.needed)}."
    return "Choose a smaller model."


def _tried(lane: Lane, plan: Plan, workload: Workload, idle: float) -> Fit | None:
    """What a lane would take, if it can run here and fits."""
    try:
        fitted = _fit(plan_for(lane, plan.model, machine(), plan.shape), workload, idle)
    except Refusal:
        return None
    return fitted if fitted and fitted.fits else None


def _narrower(lane: Lane) -> Iterator[tuple[str, Lane]]:
    """The same lane with fewer bits for its weights, and with half as many requests at once."""
    for name, part in optimizations().items():
        if part.moves.get("weights_bytes") == "down":
            for knobs in _choices(part):
                yield f"Set {part.title.lower()} to {next(iter(knobs.values()))}", _with(lane, name, knobs)
        elif part.shares and name in lane.opts:
            yield from _fewer(lane, name, lane.opts[name])


def _choices(part: type[Optimization]) -> list[dict[str, Any]]:
    """A part's settings, by its first knob of named choices."""
    knob, field = next(iter(part.model_fields.items()))
    return [{knob: choice} for choice in get_args(field.annotation)] if get_origin(field.annotation) else []


def _fewer(lane: Lane, name: str, opt: Optimization) -> Iterator[tuple[str, Lane]]:
    knob, count = next((knob, value) for knob, value in opt.knobs().items() if isinstance(value, int))
    while count > 2:
        count //= 2
        title = type(opt).model_fields[knob].title or knob
        yield f"Set {title.lower()} to {count}", _with(lane, name, {**opt.knobs(), knob: count})


def _with(lane: Lane, name: str, knobs: dict[str, Any]) -> Lane:
    return lane.model_copy(update={"opts": {**lane.opts, name: optimizations()[name](**knobs)}})
