"""What a packed step costs against the same work in two calls: `python -m tests.bench.packed`."""

import statistics
import time

import torch

from engine.decode.continuous import engine
from engine.decode.modules import ModuleSession
from engine.decode.prompts import Batch
from engine.decode.scheduler import Chunk, Work
from engine.decode.slots import Packed, attending, forward
from engine.measure.machine import machine
from engine.spec import Lane, Workload, plan_for

MODEL = "smollm2-135m"


@torch.inference_mode()
def packed(rounds: int = 12) -> None:
    """One packed step of 7 next tokens and a chunk, against the same work in two calls."""
    session = ModuleSession()
    plan = plan_for(Lane(opts={"continuous_batching": {}}), MODEL, machine())
    session.prepare(plan, Workload(prompts=("x",) * 8, max_new_tokens=4), lambda event: None)
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
