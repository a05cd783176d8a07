"""A timetable instead of a model, with faults on demand: for demonstrations, documentation and tests."""

import os
import signal
import time
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from engine.backends import Backend, Emit, Session
from engine.event import Admitted, Phase, Request, Step
from engine.plan import Plan

TEXT = "The quick lane takes the corner while the slow lane waits for its turn and counts each token. "
WORDS = TEXT.split()


class Simulated(Backend):
    """No model: tokens come on a known timetable, and faults on demand. Every result says simulated."""

    title: ClassVar[str] = "Simulated"
    needs_model: ClassVar[bool] = False

    ttft_ms: float = Field(50.0, ge=0, le=60_000, title="TTFT", description="Milliseconds to the first token.")
    tpot_ms: float = Field(10.0, ge=0, le=60_000, title="TPOT", description="Milliseconds between steps.")
    batch: int = Field(1, ge=1, le=64, title="Batch", description="Requests that share one step, at most.")
    burst: int = Field(1, ge=1, le=16, title="Burst", description="Tokens in each step, as in speculation.")
    fault: Literal["none", "raise", "kill", "segv", "hang", "oom"] = Field(
        "none", title="Fault", description="What goes wrong."
    )
    phase: Literal["load", "decode"] = Field("decode", title="Fault in", description="Where it goes wrong.")
    at: int = Field(3, ge=0, le=4096, title="Fault at", description="The step at which it goes wrong.")

    def settle(self, plan: Plan) -> None:
        plan.settings = self.knobs()

    def open(self) -> Session:
        return _Timetable()


class _Timetable(Session):
    """Sleeps until each token is due by the clock, so that errors do not add up."""

    def prepare(self, plan: Plan, workload: Any, emit: Emit) -> None:
        emit(Phase(time.perf_counter(), "load"))
        if plan.settings["phase"] == "load":
            _fail(plan.settings["fault"])

    def run(self, plan: Plan, workload: Any, emit: Emit) -> None:
        from engine.decode.arrivals import Arrivals
        from engine.decode.prompts import batches

        self.begin(plan, workload)
        size = plan.settings["batch"]
        if not workload.open_loop:
            for batch in batches(self.whole, size):
                self._batch(plan.settings, batch, emit)
            return
        arrivals = Arrivals(self.whole, workload, emit)
        while arrivals.left:
            arrivals.wait()
            self._batch(plan.settings, arrivals.admit(size), arrivals.emit)

    def begin(self, plan: Plan, workload: Any) -> None:
        from engine.decode.prompts import everything

        words = [f"{workload.system} {prompt}".split() for prompt in workload.prompts]
        self.whole = everything([tuple(range(len(prompt))) for prompt in words], workload)

    def share(self, plan: Plan, requests: Sequence[int], arrived: Sequence[float] | None, emit: Emit) -> None:
        from engine.decode.prompts import batches, pick

        mine = pick(self.whole, requests, tuple(arrived) if arrived else None)
        for place, came in enumerate(arrived or ()):
            emit(Request(came, mine.requests[place], len(mine.prompts[place])))
            emit(Admitted(time.perf_counter(), mine.requests[place]))
        for batch in batches(mine, plan.settings["batch"]) if arrived is None else [mine]:
            self._batch(plan.settings, batch, emit)

    def _batch(self, knobs: dict[str, Any], batch: Any, emit: Emit) -> None:
        """Requests that share their steps, as a static batch does: each step is due by the clock."""
        start = time.perf_counter()
        if batch.arrived is None:
            for request, words in zip(batch.requests, batch.prompts, strict=True):
                emit(Request(start, request, len(words)))
        made, step = 0, 0
        while made < batch.longest:
            if knobs["phase"] == "decode" and step == knobs["at"]:
                _fail(knobs["fault"])
            due = start + (knobs["ttft_ms"] + step * knobs["tpot_ms"]) / 1000
            time.sleep(max(0.0, due - time.perf_counter()))
            count = 1 if step == 0 else min(knobs["burst"], batch.longest - made)
            emit(_step(batch, made, count))
            made, step = made + count, step + 1

    def effective(self) -> dict[str, Any]:
        return {"backend": "simulated", "simulated": True}


def _step(batch: Any, made: int, count: int) -> Step:
    """The next `count` tokens of every request of a batch that wants more than the `made` it has."""
    going = [place for place, length in enumerate(batch.lengths) if length > made]
    ids = [tuple(range(made, min(made + count, batch.lengths[place]))) for place in going]
    text = tuple(tuple(WORDS[i % len(WORDS)] + " " for i in new) for new in ids)
    requests = tuple(batch.requests[place] for place in going)
    guessed = max(0, count - 1)
    return Step(time.perf_counter(), requests, tuple(ids), text, made, guessed, guessed)


def _fail(fault: str) -> None:
    """Do the fault for real: the point of this backend is that the rest of the house survives it."""
    if fault == "raise":
        raise ArithmeticError("a fault on demand")
    if fault == "oom":
        raise MemoryError("a fault on demand: out of memory")
    if fault in ("kill", "segv"):
        os.kill(os.getpid(), signal.SIGKILL if fault == "kill" else signal.SIGSEGV)
    if fault == "hang":
        signal.pause()
