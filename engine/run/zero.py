"""Zero: on a ZeroGPU Space a run goes as a whole into the process to which a GPU is lent, and its records come back.

`spaces.GPU` forks a daemon, hands it pickled arguments, and passes on what its generator yields. A daemon may have no
children, so there the same runner lets workers that are threads take turns. What the fork changes does not come back.
"""

import math
import os
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from engine.event import TERMINAL, Failed, Phase, Record
from engine.measure.ceiling import planned
from engine.measure.estimate import asked, estimate
from engine.measure.machine import machine
from engine.models.fetch import fetch
from engine.models.resolve import resolve
from engine.plan import Plan
from engine.refusal import Refusal
from engine.run.pool import Pool
from engine.run.runner import Run
from engine.spec import Experiment, plan_for

BEAT_S = 0.2
"""So often the lent process says something, so that a stop is noticed: it is asked only between two yields."""
GRACE_S = 3.0
START_S, READ_S = 8.0, 10.0
"""Libraries and the GPU's context; reading a text where quality is judged."""
LOAD_S, LOAD_RATE = 3.0, 5e8
"""A lane's warm-up; bytes of weights a second from a disk."""
LAYER_S, OVER_CEILING = 0.0015, 3.0
"""An eager step launches its kernels in about this time a layer, and takes so many times what the memory allows."""
LEAST_S, MOST_S = 20, 120
"""A visitor without an account has two minutes a day."""
HERE = os.getpid()


def lends(experiment: Experiment) -> bool:
    """Whether a run needs the lent GPU. PITLANE_PLACE=zero sends every run there, to try the way without a GPU."""
    here = machine()
    if not here.zero_gpu or os.environ.get("PITLANE_PLACE") == "zero":
        return here.zero_gpu
    wanted = ("auto", "cuda") if here.gpus else ("cuda",)
    return any(lane.backend.needs_model and lane.device in wanted for lane in experiment.lanes.values())


def needed_s(experiment: Experiment) -> float:
    """Seconds that a run will hold the GPU, from the estimate of each lane; one that cannot run takes none."""
    total = START_S + READ_S * experiment.quality
    for lane in experiment.lanes.values():
        try:
            plan = plan_for(lane, experiment.model, machine())
        except Refusal:
            continue
        once, turn = _costs(plan, experiment)
        total += once + experiment.rounds * turn
    return total


def _costs(plan: Plan, experiment: Experiment) -> tuple[float, float]:
    """Seconds before the first turn, and of each turn. A lane without a model has its timetable."""
    work = experiment.workload
    if plan.shape is None:
        first, step = plan.settings.get("ttft_ms", 0.0), plan.settings.get("tpot_ms", 50.0)
        return 0.0, work.count * (first + work.max_new_tokens * step) / 1000
    told = estimate(plan, plan.shape, work)
    rows = planned(plan, *asked(work), work.count).rows
    best = (told["ceiling"]["decode"]["predicted_ms"] or 0.0) / 1000
    step = max(OVER_CEILING * best, LAYER_S * plan.shape.layers)
    return LOAD_S + told["fit"]["weights"] / LOAD_RATE, (work.max_new_tokens + 1) * step * math.ceil(work.count / rows)


def held_s(data: dict[str, Any]) -> int:
    """For `spaces.GPU`, which is called with what `lend` is called with: how long the GPU is asked for."""
    return math.ceil(min(max(needed_s(Experiment.read(data)), LEAST_S), MOST_S))


def lend(data: dict[str, Any]) -> Iterator[list[Record]]:
    """In the lent process: run an experiment, given as plain data; an empty list says that nothing has happened."""
    from engine.run.inside import Inside, quiet

    pool = Pool(launch=Inside)
    run, said = Run(Experiment.read(data), pool), queue.SimpleQueue()
    talk = threading.Thread(target=_talk, args=(run, said), daemon=True)
    talk.start()
    try:
        going = True
        while going:
            batch, going = _heard(said)
            yield batch
    finally:
        run.cancel()
        talk.join(GRACE_S)
        pool.close()
        if not quiet(GRACE_S) and os.getpid() != HERE:
            os._exit(1)  # a lane is stuck: the next visitor must not be lent this process


if os.environ.get("SPACES_ZERO_GPU"):
    import spaces

    lend = spaces.GPU(duration=held_s)(lend)


def _talk(run: Run, said: queue.SimpleQueue) -> None:
    try:
        for record in run.records():
            said.put(record)
        said.put(None)
    except Exception as error:
        said.put(error)


def _heard(said: queue.SimpleQueue) -> tuple[list[Record], bool]:
    """What was said in the last moment, and whether there is more to come."""
    batch = []
    try:
        item = said.get(timeout=BEAT_S)
        while isinstance(item, Record):
            batch.append(item)
            item = said.get_nowait()
    except queue.Empty:
        return batch, True
    if item is not None:
        raise item
    return batch, False


class Lent(Run):
    """A run whose turns are taken where the GPU is lent. Raises Refusal for one that would hold it too long."""

    def __init__(self, experiment: Experiment, pool: Pool):
        super().__init__(experiment, pool)
        self.finished = dict.fromkeys(range(len(self.names)), 0)
        if (needed := needed_s(experiment)) > MOST_S:
            why = f"This run would hold the shared GPU for about {needed:.0f} s, and {MOST_S} s are the most."
            raise Refusal(why, "Choose fewer rounds, new tokens or lanes, or a smaller model.")

    def records(self) -> Iterator[Record]:
        """What can be done without the GPU is done before; then everything that the lent process says."""
        refused = list(self._refuse())
        if not self._alive():
            yield from refused
            return
        failed = yield from self._fetch()
        failed = failed or (yield from self._borrow())
        yield from self._close(failed)

    def _fetch(self) -> Iterator[Record]:
        """Models arrive here, while nobody's GPU waits for them; returns what went wrong."""
        lanes = [lane for lane in self._alive() if self.lanes[lane].backend.needs_model]
        drafts = [opt.models() for lane in lanes for opt in self.lanes[lane].opts.values()]
        names = dict.fromkeys([self.experiment.model, *(name for some in drafts for name in some)] if lanes else [])
        told: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=_fetched, args=(list(names), told), daemon=True).start()
        while (item := _next(told)) is not None and not self.cancelled.is_set():
            if isinstance(item, Failed):
                return item
            yield from (Record(lane, None, item) for lane in lanes if isinstance(item, Phase))
        return None

    def _borrow(self) -> Iterator[Record]:
        """Returns what took the GPU away, if anything did; the package's own errors are for Gradio's page."""
        try:
            with closing(lend(self.experiment.to_dict())) as batches:
                while not self.cancelled.is_set() and (batch := next(batches, None)) is not None:
                    for record in batch:
                        self._note(record)
                        yield record
        except Exception as error:
            said = str(getattr(error, "message", error)).strip().rstrip(".")
            why = f"No GPU was lent, or it was taken back: {said or type(error).__name__}."
            return Failed(time.perf_counter(), why, "Ask for fewer rounds, tokens or lanes, or try again later.")
        return None

    def _note(self, record: Record) -> None:
        if isinstance(record.event, TERMINAL):
            if isinstance(record.event, Failed):
                self.out.add(record.lane)
            self.finished[record.lane] += record.round is not None

    def _close(self, failed: Failed | None) -> Iterator[Record]:
        """Every lane that was cut off ends in one Failed."""
        if self.cancelled.is_set():
            failed = Failed(time.perf_counter(), "Stopped.", "", "cancelled")
        for lane in self._alive():
            if failed and self.finished[lane] < self.experiment.rounds:
                yield Record(lane, None, failed)


def _fetched(names: list[str], told: queue.SimpleQueue) -> None:
    """Says how far it is, then None, or a Failed before it."""
    try:
        for name in names:
            fetch(resolve(name), lambda *done: told.put(Phase(time.perf_counter(), "fetch", *done)))
    except Refusal as refusal:
        told.put(Failed(time.perf_counter(), refusal.why, refusal.hint, "refused"))
    except Exception as error:
        told.put(Failed(time.perf_counter(), f"The model could not be fetched: {error}.", "Try again later."))
    told.put(None)


def _next(told: queue.SimpleQueue) -> Any:
    """What comes next; something that is neither Phase nor Failed while nothing does."""
    try:
        return told.get(timeout=BEAT_S)
    except queue.Empty:
        return ()
