"""A timetable instead of a model, with faults on demand: for demonstrations, documentation and tests."""

import os
import signal
import time
from typing import Any, ClassVar, Literal

from pydantic import Field

from engine.backends import Backend, Emit, Session
from engine.event import Phase, Request, Step
from engine.plan import Plan

TEXT = "The quick lane takes the corner while the slow lane waits for its turn and counts each token. "
WORDS = TEXT.split()


class Simulated(Backend):
    """No model: tokens come on a known timetable, and faults on demand. Every result says simulated."""

    title: ClassVar[str] = "Simulated"
    needs_model: ClassVar[bool] = False

    ttft_ms: float = Field(50.0, ge=0, le=60_000, title="TTFT", description="Milliseconds to the first token.")
    tpot_ms: float = Field(10.0, ge=0, le=60_000, title="TPOT", description="Milliseconds between steps.")
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
        for number, prompt in enumerate(workload.prompts):
            self._request(plan.settings, number, prompt, workload.max_new_tokens, emit)

    def _request(self, knobs: dict[str, Any], number: int, prompt: str, tokens: int, emit: Emit) -> None:
        start = time.perf_counter()
        emit(Request(start, number, len(prompt.split())))
        made = step = 0
        while made < tokens:
            if knobs["phase"] == "decode" and step == knobs["at"]:
                _fail(knobs["fault"])
            due = start + (knobs["ttft_ms"] + step * knobs["tpot_ms"]) / 1000
            time.sleep(max(0.0, due - time.perf_counter()))
            count = 1 if step == 0 else min(knobs["burst"], tokens - made)
            ids = tuple(range(made, made + count))
            text = tuple(WORDS[i % len(WORDS)] + " " for i in ids)
            emit(
                Step(
                    time.perf_counter(),
                    (number,),
                    (ids,),
                    (text,),
                    made,
                    max(0, count - 1),
                    max(0, count - 1),
                )
            )
            made, step = made + count, step + 1

    def effective(self) -> dict[str, Any]:
        return {"backend": "simulated", "simulated": True}


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
