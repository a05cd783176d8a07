"""Ceiling: what a lane asks of the machine in each phase, told by its plan before a run and by its turns after it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

from engine.measure.formats import Formats, formats, found
from engine.measure.metrics import acceptance, tpot_ms, ttft_ms
from engine.measure.roofline import entry
from engine.measure.roofs import roof
from engine.measure.timeline import Timeline
from engine.measure.work import Work, forward
from engine.models.architecture import Architecture, known
from engine.plan import Plan

CACHE_STEP = 64
"""Static caches are rounded up to this many tokens."""


@dataclass(frozen=True)
class Use:
    """How a lane is used: means over its turns.

    `prompt` tokens in each of the `together` requests that are read at once, `reused` of them kept from earlier
    ones; `output` tokens for each; `rows` requests in a step. A step makes `guesses` and gives `tokens` to a request.
    """

    prompt: float
    output: float
    rows: float = 1.0
    together: float = 1.0
    reused: float = 0.0
    guesses: float = 0.0
    tokens: float = 1.0


def used(lines: Sequence[Timeline], plan: Plan) -> Use | None:
    """What the turns of a lane really were; None where there is no token."""
    requests = [line for turn in lines for line in turn.requests.values() if line.arrivals]
    steps = sum(turn.steps for turn in lines)
    if not requests or not steps:
        return None
    starts = sum(len({line.start for line in turn.requests.values()}) for turn in lines)
    guesses = sum(turn.drafted for turn in lines) / steps
    if plan.speculation and not guesses:  # generate does not tell its guesses
        guesses = plan.speculation["guesses"]
    lengths = [tokens for turn in lines if (tokens := acceptance(turn)) is not None]
    return Use(
        prompt=median(line.prompt_tokens for line in requests),
        output=fmean(len(line.tokens) for line in requests),
        rows=sum(turn.answered for turn in lines) / steps,
        together=len(requests) / starts,
        reused=median(line.reused for line in requests),
        guesses=guesses,
        tokens=median(lengths) if lengths else 1.0,
    )


def planned(plan: Plan, prompt: float, output: float, requests: int) -> Use:
    """What a lane will do, at best: all requests are there at once, every guess is right."""
    rows = min(plan.continuous["slots"], requests) if plan.continuous else plan.batch_of(requests)
    guesses = plan.speculation["guesses"] if plan.speculation else 0
    together = 1 if plan.continuous else rows
    return Use(prompt, output, rows, together, guesses=guesses, tokens=min(guesses + 1.0, max(1.0, output - 1)))


def prefill(plan: Plan, shape: Architecture, how: Formats, use: Use) -> Work:
    """Reading the prompts that come together; a draft with a cache of its own reads them as well."""
    scores = plan.attention == "eager" and not plan.continuous
    fresh = max(1.0, use.prompt - use.reused)
    own = forward(shape, how, fresh, use.reused, rows=use.together, scores=scores)
    draft = guesser(plan, shape, how)
    if not draft or not apart(plan):
        return own
    return own + forward(*draft, use.prompt).times(1, "draft")


def decode(plan: Plan, shape: Architecture, how: Formats, use: Use, places: float | None = None) -> Work:
    """One step in the middle of the answer; with speculation, the guesses and their check.

    `places` are those of a static cache, which modules read at full length behind a mask; a native step reads the
    places that are filled.
    """
    kept = use.prompt + use.output / 2
    scores = plan.attention == "eager" and not plan.continuous
    if plan.cache == "off":
        return forward(shape, how, kept + 1, rows=use.rows, logits=use.guesses + 1, scores=scores)
    reach = _reach(plan, kept, use, places)
    width = use.guesses + 1
    seen = replace(shape, sliding=0) if keeps_all(plan) else shape  # what is kept is read, behind a mask
    own = forward(seen, how, width, kept, use.rows, logits=width, reach=reach, scores=scores)
    draft = guesser(plan, shape, how)
    if not draft or not use.guesses:
        return own
    return own + forward(*draft, 1, kept).times(use.guesses, "draft")


def _reach(plan: Plan, kept: float, use: Use, places: float | None) -> float | None:
    if plan.window:
        return min(kept, plan.window["window"] + plan.window["sinks"])
    if plan.cache != "static" or plan.continuous or plan.native:
        return None
    if places:
        return places
    length = use.prompt + use.output + (use.guesses + 1 if use.guesses else 0)
    return -(-length // CACHE_STEP) * CACHE_STEP


def keeps_all(plan: Plan) -> bool:
    """Whether keys and values of every token stay, also in layers that see a window only.

    Guesses must be taken back, slots are alike in all layers, and a compiled or recorded step needs one kind of layer.
    transformers' generate keeps windows whatever it does.
    """
    whole = plan.speculation or plan.continuous or plan.compile or plan.kernels or plan.graph
    return bool(whole) and plan.backend != "generate"


def apart(plan: Plan) -> bool:
    """Whether a draft keeps keys and values of its own, and so reads the prompt too."""
    return bool(plan.draft) and ("layers" in plan.draft or not plan.draft.get("packed"))


def guesser(plan: Plan, shape: Architecture, how: Formats) -> tuple[Architecture, Formats] | None:
    """The model that guesses: another one, or the first layers of this one; None where guesses are copied."""
    if plan.draft:
        own = known(plan.draft["model"]) or (shape if plan.draft["model"] == plan.model else None)
        packed = plan.draft.get("packed")
        if "layers" in plan.draft:  # a trained one: the whole model's shape, cut; it borrows the embedding
            cut = {name: plan.draft[name] for name in ("layers", "vocabulary")}
            own = replace(shape, **cut, sliding=0, tied=True)
        elif packed:  # the model's own weights once more, which borrow it too
            own = replace(shape, tied=True)
        stored = {"dtype": plan.draft["dtype"], "quantization": plan.draft["quantization"], "kv_bits": None}
        stored |= {"packed": packed, "native": bool(packed)}
        return (own, formats(replace(plan, **stored), own)) if own else None
    layers = (plan.speculation or {}).get("layers")
    return (replace(shape, layers=layers, sliding=min(shape.sliding, layers)), how) if layers else None


def ceiling(effective: dict[str, Any], lines: Sequence[Timeline], figures: dict[str, Any] | None) -> dict[str, Any]:
    """Both phases of a lane that ran: see `engine.measure.roofline.entry`. None where its shape or use is unknown.

    `effective` is what the worker reported, its plan included; `figures` are those of `engine.measure.roofs`.
    """
    plan = plan_of(effective)
    use = used(lines, plan) if plan else None
    if not plan or not plan.shape or not use:
        return {"prefill": None, "decode": None}
    how, roofs = found(plan, plan.shape, effective), roof(figures, plan)
    reading, writing = prefill(plan, plan.shape, how, use), decode(plan, plan.shape, how, use, _room(effective, use))
    started = None if plan.compile and plan.device == "cpu" else (effective.get("launches") or {}).get("calls")
    alike = not (plan.compile or plan.graph or use.guesses)  # only then a prompt starts what a step starts
    queued = any(line.terms.open_loop for line in lines) or (plan.continuous and use.rows > 1)
    first, gap = None if queued else _median(ttft_ms, lines), _median(tpot_ms, lines)
    return {
        "prefill": entry(reading, roofs, how.arithmetic, 1, first, started if alike else None),
        "decode": entry(writing, roofs, how.arithmetic, use.tokens, gap, started) if gap else None,
    }


def _room(effective: dict[str, Any], use: Use) -> float | None:
    """Places of a static cache for each request, as they were read back; None for other caches."""
    kv = effective.get("kv") or {}
    return kv["tokens"] / max(1, round(use.together)) if kv.get("kind") == "static" else None


def _median(metric: Callable[[Timeline], float | None], lines: Sequence[Timeline]) -> float | None:
    values = [value for line in lines if (value := metric(line)) is not None]
    return median(values) if values else None


def predicted(plan: Plan, shape: Architecture, use: Use, figures: dict[str, Any] | None) -> dict[str, Any]:
    """Both phases of a lane before it runs: the least first token and time per token, every guess being right."""
    how, roofs = formats(plan, shape), roof(figures, plan)
    return {
        "prefill": entry(prefill(plan, shape, how, use), roofs, how.arithmetic),
        "decode": entry(decode(plan, shape, how, use), roofs, how.arithmetic, use.tokens),
    }


def plan_of(effective: dict[str, Any]) -> Plan | None:
    """The plan that a worker reported, with its shape; None in results of before."""
    data = dict(effective.get("plan") or {})
    if not data:
        return None
    shape = data.pop("shape", None)
    return Plan(**data, shape=Architecture.from_dict(shape) if shape else None)
