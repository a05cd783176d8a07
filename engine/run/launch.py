"""Launch: from a lane's plan to its processes: one worker, replicas with their own cores, or torchrun's ranks."""

import os
import sys
from collections.abc import Sequence

from engine.measure.machine import machine
from engine.plan import Plan
from engine.run.child import Child
from engine.run.replicas import Replicas

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node")


def launch(plan: Plan, silence: dict[str, float] | None = None) -> Child | Replicas:
    """Start what this plan runs in. Returns at once: the processes import their libraries meanwhile."""
    if plan.replicas > 1:
        return Replicas([_replica(plan, place, silence) for place in range(plan.replicas)])
    if plan.tensor_parallel > 1:
        return _ranks(plan, silence)
    return Child(plan.threads, silence)


def core_groups(count: int, cores: Sequence[int]) -> list[list[int]]:
    """`cores` cut into `count` groups of equal size; with fewer cores than groups, groups of one core share them."""
    size = max(1, len(cores) // count)
    return [[cores[(group * size + place) % len(cores)] for place in range(size)] for group in range(count)]


def _cores() -> list[int]:
    """The cores that this process may use: no more than its container's share of time is worth."""
    return sorted(os.sched_getaffinity(0))[: machine().cores]


def _replica(plan: Plan, place: int, silence: dict[str, float] | None) -> Child:
    group = core_groups(plan.replicas, _cores())[place]
    extra = {"PITLANE_CORES": _listed(group)}
    if plan.device == "cuda":
        extra["CUDA_VISIBLE_DEVICES"] = _devices()[place]
    return Child(plan.threads or len(group), silence, extra=extra)


def _ranks(plan: Plan, silence: dict[str, float] | None) -> Child:
    """torchrun starts the ranks; it must find every GPU that they use, or none where they run on the processor."""
    groups = core_groups(plan.tensor_parallel, _cores())
    extra = {"PITLANE_CORES": ";".join(_listed(group) for group in groups)}
    if plan.device == "cpu":
        extra |= {"CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, *TORCHRUN, str(plan.tensor_parallel), "-m", "engine.run.worker"]
    return Child(plan.threads or len(groups[0]), silence, command, extra)


def _listed(group: Sequence[int]) -> str:
    return ",".join(map(str, group))


def _devices() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(place) for place in range(len(machine().gpus))]
