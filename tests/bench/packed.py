"""What a packed step of continuous batching costs against the same work in two calls."""

import time
from statistics import median
from typing import Any

import torch

from engine.bench.measuring import heading, line
from engine.decode.continuous import engine
from engine.decode.modules import ModuleSession
from engine.decode.prompts import Batch
from engine.decode.scheduler import Chunk, Work
from engine.measure.machine import machine
from engine.run.pool import Pool
from engine.spec import Lane, Workload, plan_for

CHUNKS = (16, 64, 128)
DECODING = tuple(range(7))
"""Requests that get their next token in the step, each with 100 tokens in the cache."""


@torch.inference_mode()
def run(pool: Pool, rounds: int, model: str, only: list[str]) -> dict[str, Any]:
    """Seven next tokens and a chunk of a prompt: together, apart, and the tokens alone; medians over `rounds`."""
    session = ModuleSession()
    plan = plan_for(Lane(opts={"continuous_batching": {}}), model, machine())
    session.prepare(plan, Workload(prompts=("x",) * 8, max_new_tokens=4), lambda event: None)
    whole = Batch(tuple(range(8)), tuple(tuple(range(1, 129)) for _ in range(8)), (64,) * 8)
    slots = engine(session.model, whole, plan.continuous, 1.0).slots
    print(heading("chunk of", "together, ms", "decode + chunk apart, ms", "decode alone, ms"))
    kept = {}
    for size in CHUNKS:
        kept[str(size)] = found = _spent(slots, size, rounds)
        print(
            line(
                str(size), *(f"{median(times):.1f} ({min(times):.1f} to {max(times):.1f})" for times in found.values())
            )
        )
    return kept


def _spent(slots: Any, size: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each way of doing the same work, taking turns."""
    chunk = (Chunk(7, 0, size, True),)
    ways = {
        "together": [Work(DECODING, chunk)],
        "apart": [Work(DECODING, ()), Work((), chunk)],
        "alone": [Work(DECODING, ())],
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    with slots.open():
        for turn in range(rounds + 1):  # the first warms up
            for name, works in ways.items():
                start = time.perf_counter()
                for work in works:
                    _step(slots, work)
                if turn:
                    spent[name].append((time.perf_counter() - start) * 1000)
    return spent


def _step(slots: Any, work: Work) -> None:
    cached = [100] * len(DECODING) + [0]
    ids = [5] * (len(work.decoding) + sum(part.count for part in work.chunks))
    slots.read(work, cached, ids)
