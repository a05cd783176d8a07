"""What can execute a lane, one backend a file."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from engine.event import Event, Step
from engine.part import Part
from engine.plan import Plan

Emit = Callable[[Event], None]


class Session:
    """A loaded lane inside a worker. It emits events and keeps what is expensive warm between turns."""

    architecture: Any = None
    """The model's shape, once its config is there."""

    def recheck(self, architecture: Any) -> Plan | None:
        """Asked once the model's config is there, before any weight is loaded: the plan for this architecture.

        The worker puts in its own, which raises Refusal where the lane cannot run with it; None changes nothing.
        """
        return None

    def prepare(self, plan: Plan, workload: Any, emit: Emit) -> None:
        """Fetch, load, compile: everything that is paid once. Raises Refusal for bad input."""

    def rewarm(self, plan: Plan, workload: Any, emit: Emit) -> None:
        """Asked after `prepare` in a worker that was idle: its caches are cold even where it knows every shape.

        The first round of such a run scattered by 5.8 %, the others by 3.8 %.
        """

    def run(self, plan: Plan, workload: Any, emit: Emit) -> None:
        """Generate for the whole workload, emitting Request and Step events. Raises Refusal for bad input."""
        raise AttributeError(f"{type(self).__name__} does not run")

    def begin(self, plan: Plan, workload: Any) -> None:
        """Get ready for `share`. Raises Refusal for bad input."""
        raise AttributeError(f"{type(self).__name__} does not share")

    def share(self, plan: Plan, requests: Sequence[int], arrived: Sequence[float] | None, emit: Emit) -> None:
        """Generate for just these requests of the workload that began; `arrived` says when each of them came."""
        raise AttributeError(f"{type(self).__name__} does not share")

    def load(self, plan: Plan, workload: Any, emit: Emit) -> None:
        """The loading part of `prepare`, for `read`. Raises Refusal for bad input."""
        raise AttributeError(f"{type(self).__name__} loads no model")

    def say(self, step: Step) -> Step:
        """Put the text pieces into a step; called in the sender's thread, away from the timed one."""
        return step

    def memory(self) -> dict[str, int | None]:
        """Bytes of `weights` and `kv` now, from the tensors themselves."""
        return {}

    def effective(self) -> dict[str, Any]:
        """What really ran, read back from the loaded modules."""
        return {}


class Backend(Part):
    """Base of all backends; `open` is called inside the worker and is the only place that may import torch."""

    group: ClassVar[str] = "backend"
    needs_model: ClassVar[bool] = True

    def settle(self, plan: Plan) -> None:
        """Put this backend's own knobs into the plan."""

    def open(self) -> Session:
        raise AttributeError(f"{type(self).__name__} does not open")
