"""Greedy tokens of the native step in float32 against the modules, which read every text that was written once."""

from typing import Any

import torch

from engine.backends import Session
from engine.bench.measuring import heading, line
from engine.bench.texts import LONG
from engine.event import Event, Step
from engine.measure.machine import machine
from engine.plan import Plan
from engine.run.pool import Pool
from engine.spec import Lane, Workload, plan_for

PROMPTS, TOKENS, TOGETHER, AT_ONCE = 200, 16, 8, 40
"""Texts, tokens of each answer, texts in a batch, and those of one workload, which holds 64."""
WAYS: dict[str, dict[str, Any]] = {
    "native step": {"native_step": {}},
    f"native step, {TOGETHER} together": {"native_step": {}, "batching": {"size": TOGETHER}},
}


def workloads() -> list[Workload]:
    """Beginnings of sentences: 3 to 12 words of a text, from another word on each time."""
    words = LONG.split()
    several = [" ".join(words[first % 60 : first % 60 + 3 + first // 60 * 3]) for first in range(PROMPTS)]
    pieces = [several[first : first + AT_ONCE] for first in range(0, PROMPTS, AT_ONCE)]
    return [Workload(prompts=tuple(piece), max_new_tokens=TOKENS, chat=False, fixed_length=False) for piece in pieces]


def run(pool: Pool, rounds: int, model: str, only: list[str]) -> dict[str, Any]:
    """Print how many texts hold only tokens that the modules like best; returns the margins of the others, in logits.

    A text whose every token is the likeliest after those before it is the one that the plain loop writes.
    """
    reader, plan = opened({}, model)
    reader.prepare(plan, workloads()[0], lambda event: None)
    print(heading("way", "the plain loop's text", "margins of other tokens"))
    kept = {}
    for name, opts in WAYS.items():
        kept[name] = found = [margin(reader, plan, *text) for text in written(opts, model)]
        others = [f"{worst:.1g}" for worst in found if worst]
        print(line(name, f"{PROMPTS - len(others)} of {PROMPTS}", ", ".join(others) or "–"), flush=True)
    return kept


def opened(opts: dict[str, Any], model: str) -> tuple[Session, Plan]:
    lane = Lane(opts=opts)
    return lane.backend.open(), plan_for(lane, model, machine())


def margin(reader: Session, plan: Plan, prompt: tuple[int, ...], text: list[int]) -> float:
    """By how much the likeliest token was ahead of the written one where they differ first; 0 where they never do."""
    logits = torch.cat(list(reader.read(plan, prompt, text)))
    behind = logits.amax(-1) - logits.gather(-1, torch.tensor(text)[:, None])[:, 0]
    return next((float(gap) for gap in behind if gap > 0), 0.0)


def written(opts: dict[str, Any], model: str) -> list[tuple[tuple[int, ...], list[int]]]:
    """Token ids of every prompt and its answer, float32 and greedy."""
    session, plan = opened(opts, model)
    return [text for workload in workloads() for text in _some(session, plan, workload)]


def _some(session: Session, plan: Plan, workload: Workload) -> list[tuple[tuple[int, ...], list[int]]]:
    texts: list[list[int]] = [[] for _ in workload.prompts]

    def see(event: Event) -> None:
        if isinstance(event, Step):
            for request, tokens in zip(event.requests, event.tokens, strict=True):
                texts[request].extend(tokens)

    session.prepare(plan, workload, lambda event: None)
    session.run(plan, workload, see)
    return list(zip(session.whole(plan, workload).prompts, texts, strict=True))
