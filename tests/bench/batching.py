"""Static against continuous batching on the same arrivals, and what a packed step costs: `python -m tests.bench.batching`."""

import statistics
import sys
import time
from typing import Any

import torch

from engine.decode.continuous import engine
from engine.decode.generate import GenerateSession
from engine.decode.modules import ModuleSession
from engine.decode.prompts import Batch
from engine.decode.scheduler import Chunk, Work
from engine.decode.slots import Packed, attending, forward
from engine.measure.machine import machine
from engine.measure.metrics import METRICS
from engine.measure.timeline import Terms, Timeline
from engine.spec import Lane, Workload, plan_for

MODEL = "smollm2-135m"
PROMPTS = (
    "Why is the sky blue?",
    "Name three uses of a lighthouse and say who invented the first one.",
    "Explain what a cache is to a ten-year-old, with an example from a kitchen. " * 4,
    "What is the difference between weather and climate? Answer in detail. " * 8,
)
LANES = {
    "static 4": Lane(opts={"batching": {"size": 4}}),
    "static 8": Lane(opts={"batching": {"size": 8}}),
    "continuous 8": Lane(opts={"continuous_batching": {"slots": 8}}),
    "transformers, 8 requests": Lane(backend="generate", opts={"continuous_batching": {"slots": 8}}),
}
SHOWN = ("output_tok_per_s", "ttft_ms", "ttft_p90_ms", "queue_ms", "tpot_ms", "goodput_per_s", "in_flight")


def asked(rate: float) -> Workload:
    return Workload(
        prompts=PROMPTS, requests=24, max_new_tokens=48, spread=0.75, arrivals="poisson", rate=rate, seed=1,
        ttft_limit_ms=2000.0, tpot_limit_ms=200.0,
    )  # fmt: skip


def arrivals(rates: list[float], rounds: int) -> None:
    """Interleaved rounds; medians."""
    plans = {name: plan_for(lane, MODEL, machine()) for name, lane in LANES.items()}
    sessions: dict[str, Any] = {"transformers": ModuleSession(), "generate": GenerateSession()}
    for rate in rates:
        found: dict[str, list[Timeline]] = {name: [] for name in LANES}
        for number in range(rounds):
            for name in list(LANES)[:: 1 if number % 2 == 0 else -1]:
                plan, session = plans[name], sessions[plans[name].backend]
                session.prepare(plan, asked(rate), lambda event: None)
                line = Timeline(Terms.of(asked(rate)))
                session.run(plan, asked(rate), line.see)
                found[name].append(line)
        print(f"\n{rate:g} requests/s     " + "  ".join(f"{name:>16}" for name in SHOWN))
        for name, lines in found.items():
            values = [statistics.median(METRICS[metric].read(line) or 0.0 for line in lines) for metric in SHOWN]
            print(f"{name:26}" + "  ".join(f"{value:16.2f}" for value in values), flush=True)


@torch.inference_mode()
def packed(rounds: int = 12) -> None:
    """One packed step of 7 next tokens and a chunk, against the same work in two calls."""
    session = ModuleSession()
    plan = plan_for(LANES["continuous 8"], MODEL, machine())
    session.prepare(plan, Workload(prompts=PROMPTS, max_new_tokens=4), lambda event: None)
    whole = Batch(tuple(range(8)), tuple(tuple(range(1, 129)) for _ in range(8)), (64,) * 8)
    slots = engine(session.model, whole, plan.continuous, 1.0).slots
    cached = [100] * 7 + [0]
    print("\nms a step      together   decode + chunk apart   decode alone")
    for size in (16, 64, 128):
        decoding, chunk = tuple(range(7)), (Chunk(7, 0, size, True),)
        calls = {
            "together": [Work(decoding, chunk)],
            "apart": [Work(decoding, ()), Work((), chunk)],
            "alone": [Work(decoding, ())],
        }
        spent: dict[str, list[float]] = {name: [] for name in calls}
        with attending(session.model):
            for _ in range(rounds):
                for name, works in calls.items():
                    start = time.perf_counter()
                    for work in works:
                        ids = [5] * (len(work.decoding) + sum(part.count for part in work.chunks))
                        forward(session.model, Packed.of(slots, work, cached, session.model.device), ids)
                    spent[name].append((time.perf_counter() - start) * 1000)
        print(
            f"chunk of {size:3}   " + "   ".join(f"{statistics.median(spent[name]):12.1f}" for name in calls),
            flush=True,
        )


if __name__ == "__main__":
    packed()
    arrivals([float(rate) for rate in sys.argv[2:]] or [1.0, 2.0, 4.0], int(sys.argv[1]) if sys.argv[1:] else 3)
