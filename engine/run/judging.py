"""Judging: when the turns are over, what a lossy lane's text is worth is read in its own worker and the reference's."""

import os
import shutil
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from engine.event import Failed, Finished, Judged, Record
from engine.measure.texts import TEXT
from engine.plan import Plan
from engine.run import readings
from engine.run.questions import Questions
from engine.spec import Lane

FOLDER = "pitlane-reading"

Figures = dict[str, Any]
"""By part: "text", the bundled one, and "prompt", the workload's own prompts with the reference's answers."""


class Judging:
    """The quality of every lossy lane of a run. `records()` may be consumed once."""

    def __init__(self, run: Any):
        self.run, self.questions = run, Questions(run)
        self.plans: dict[int, Plan] = {n: p for n, p in run.plans.items() if run.lanes[n].backend.needs_model}
        self.answers: list[tuple[int, list[int]]] = []

    def records(self) -> Iterator[Record]:
        """A Judged event for each lossy lane: its figures, or a sentence why there are none."""
        if not self.plans:
            return
        reference = self._reference()
        plan = self.questions.plan(reference)
        lossy = [lane for lane, own in self.plans.items() if own.loss() != plan.loss()]
        self.answers = self._answers(plan)
        found = yield from self._figures(reference, plan, [lane for lane in lossy if lane not in self.run.out])
        for lane in lossy:
            quality = found.get(lane, {"why": "It did not finish, so its predictions were not compared."})
            named = {"reference": f"the unquantized model in {plan.dtype}", **quality}
            yield Record(lane, None, Judged(time.perf_counter(), {"quality": named}))

    def _reference(self) -> Lane:
        """The plain lane, in its default number format, or in float32 if any lane of the experiment is."""
        first = self.run.lanes[min(self.plans)]
        plain = Lane(backend=first.backend, device=first.device)
        wide = self.questions.plan(plain.exact()).dtype
        return plain.exact() if any(plan.dtype == wide for plan in self.plans.values()) else plain

    def _answers(self, plan: Plan) -> list[tuple[int, list[int]]]:
        """What a lane wrote that computes as the reference does, request by request; else what the first one wrote."""
        written = {lane: answers for lane, answers in self.run.written.lanes.items() if lane not in self.run.out}
        alike = [lane for lane in written if lane in self.plans and self.plans[lane].loss() == plan.loss()]
        lane = next(iter([*alike, *sorted(written)]), None)
        return sorted(written[lane].items()) if lane is not None else []

    def _keys(self, lane: int, reference: Plan) -> dict[str, str]:
        """Under which names the parts of a lane's reading are kept."""
        workload = self.run.experiment.workload
        texts: Figures = {"text": TEXT}
        if self.answers:
            texts["prompt"] = [workload.prompts, workload.system, workload.chat, self.answers]
        weights = self.run.written.weights
        return {part: readings.key(self.plans[lane], reference, weights, text) for part, text in texts.items()}

    def _figures(self, reference: Lane, plan: Plan, lossy: list[int]) -> Generator[Record, None, dict[int, Figures]]:
        """The parts of each lane, from earlier readings where there are; a sentence `why` where one is missing."""
        keys = {lane: self._keys(lane, plan) for lane in lossy}
        found = {lane: _known(names) for lane, names in keys.items()}
        todo = [lane for lane in lossy if len(found[lane]) < len(keys[lane])]
        missing = {part for lane in todo for part in keys[lane].keys() - found[lane].keys()}
        with place() as folder:
            command = {
                "folder": str(folder),
                "text": TEXT if "text" in missing else "",
                "answers": self.answers if "prompt" in missing else [],
            }
            ready: Finished | Failed = Failed(time.perf_counter(), "It was stopped before.", "", "cancelled")
            if todo and not self.run.cancelled.is_set():
                ready = yield from self.questions.ask(todo[0], reference, {"do": "keep", **command})
            for lane in todo:
                fresh = yield from self._compared(lane, ready, command)
                kept = {part: readings.keep(keys[lane][part], fresh[part]) for part in keys[lane] if part in fresh}
                found[lane] |= fresh | kept
        return found

    def _compared(
        self, lane: int, ready: Finished | Failed, command: dict[str, Any]
    ) -> Generator[Record, None, Figures]:
        if isinstance(ready, Failed):
            return {"why": f"The reference could not be read. {ready.why}"}
        end = yield from self.questions.ask(lane, self.run.lanes[lane], {"do": "compare", **command})
        return {"why": f"It could not be read. {end.why}"} if isinstance(end, Failed) else end.effective


def _known(keys: dict[str, str]) -> Figures:
    """The parts that were read before."""
    return {part: figures for part, key in keys.items() if (figures := readings.known(key))}


@contextmanager
def place() -> Iterator[Path]:
    """A private folder for logits, gone afterwards; what processes that were killed have left behind goes now."""
    for left in Path(tempfile.gettempdir()).glob(f"{FOLDER}-*-*"):
        owner = left.name.split("-")[2]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{FOLDER}-{os.getpid()}-", ignore_cleanup_errors=True) as made:
        yield Path(made)
