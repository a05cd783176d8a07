"""What showing tokens costs a GPU that goes on meanwhile: one recorded step with its mailbox and without it.

A program, `python -m engine.bench.mailbox MODEL`; it prints a line of JSON.
"""

import json
import sys
import time
from dataclasses import replace
from functools import partial
from typing import Any

from engine.bench.checks import opened
from engine.bench.interleaved import interleaved
from engine.bench.rows import NATIVE

STEPS = 256
PLACE = 64
"""Tokens in the cache before the first step."""


def cost(model: str) -> dict[str, Any]:
    """Milliseconds of a step with the mailbox read as a lane reads it, and with neither; their ratio pair by pair."""
    import torch

    with torch.inference_mode():
        session, _ = opened("cuda", model, NATIVE)
        runners = _runners(session)
        turns = {name: partial(_turn, runner, name == "with") for name, runner in runners.items()}
        return {"model": model, **interleaved(turns)}


def _runners(session: Any) -> dict[str, Any]:
    from engine.decode.gpu_feeding import Feeding, Runner
    from engine.decode.gpu_native import GpuNative
    from engine.decode.sampling import Sampling

    native: GpuNative = session.native
    stepper = native.stepper(session.model, PLACE + STEPS)
    steps = {name: Feeding(session.model, stepper.steps, Sampling(frozenset(), True)) for name in ("with", "without")}
    steps["without"].feed = replace(steps["without"].feed, mailbox=None)
    runners = {name: Runner(step) for name, step in steps.items()}
    for runner in runners.values():
        runner.record(PLACE, [0])
    return runners


def _turn(runner: Any, read: bool) -> float:
    import torch

    runner.start(torch.full((1, 1), 7, device="cuda"), PLACE, [0])
    torch.cuda.synchronize()
    began = time.perf_counter()
    for number in range(STEPS):
        runner.launch_until(number, STEPS)
        if read:
            runner.read(number)
    torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - began) / STEPS


if __name__ == "__main__":
    print(json.dumps(cost(sys.argv[1])))
