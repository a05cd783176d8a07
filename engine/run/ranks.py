"""Ranks: the processes of one tensor-parallel lane go in lockstep, and rank 0 speaks for them."""

import os
import select
import signal
from datetime import timedelta
from typing import Any

from engine.event import Step
from engine.measure.machine import machine
from engine.plan import Plan
from engine.refusal import Refusal
from engine.spec import Workload

PATIENCE = timedelta(days=1)
"""How long a rank waits for the others: idle is no fault, and the parent ends a lane that says nothing."""


def rank() -> int | None:
    """This process' number among torchrun's ranks; None where there is only one worker."""
    return int(os.environ["RANK"]) if "TORCHELASTIC_RUN_ID" in os.environ else None


def pin(number: int) -> None:
    """Keep this process, and all threads that it starts from now on, on its group of PITLANE_CORES."""
    groups = os.environ.get("PITLANE_CORES", "").split(";")
    if groups[0]:
        machine()  # looks once and remembers: plans are made for the whole machine, not for this process' cores
        os.sched_setaffinity(0, map(int, groups[number % len(groups)].split(",")))


def end_with_parent() -> None:
    """Wait until the lifeline's other end closes, without reading from it, and end this rank.

    torchrun gives each rank a session of its own, so no signal to a group reaches all of them.
    """
    lifeline = select.poll()
    lifeline.register(0, 0)
    lifeline.poll()
    os.killpg(0, signal.SIGKILL)


def check(plan: Plan, workload: Workload) -> None:
    """Raises Refusal for what the clock decides: each rank has its own look at it, and they would part."""
    if workload.open_loop and plan.batch > 1:
        raise Refusal(
            "Ranks cannot agree on how many requests have arrived, so batches that fill by the clock are not possible.",
            "Let requests come in turn, or switch static batching or tensor parallelism off.",
        )


class Ranks:
    """The group as one of its ranks sees it. `number` is this rank, 0 the one that hears and speaks."""

    def __init__(self, number: int):
        import torch
        import torch.distributed as group

        self.number, self.group, self.torch = number, group, torch
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        group.init_process_group(backend, timeout=PATIENCE)

    def command(self, given: Any) -> Any:
        """What rank 0 was given, on every rank."""
        box = [given]
        self.group.broadcast_object_list(box, src=0, device=self.torch.device("cpu"))
        return box[0]

    def agree(self, step: Step, stop: bool) -> bool:
        """Whether rank 0 was asked to stop. Raises ArithmeticError where this rank chose other tokens than rank 0.

        All ranks compute whole logits from their shares and draw from the same seed, so they choose alike; if they
        ever did not, each would go on with another text.
        """
        mine = [token for tokens in step.tokens for token in tokens]
        told = self.torch.tensor([int(stop), *mine])
        self.group.broadcast(told, src=0)
        if told[1:].tolist() != mine:
            raise ArithmeticError("the ranks of this lane chose different tokens")
        return bool(told[0])
