"""Parting: where lanes that claim the same text wrote different tokens, whether that is a tie or a fault."""

import time
from collections.abc import Generator, Iterator
from typing import Any

from engine.event import Failed, Judged, Phase, Record
from engine.measure.fate import Answers, parting
from engine.refusal import Refusal
from engine.run.questions import Questions
from engine.spec import Lane

FURTHER = 8
"""Tokens that the re-check writes past the one at which the texts part."""


class Partings:
    """The fate of every lane's text beside the first lane's. `records()` may be consumed once."""

    def __init__(self, run: Any):
        self.run, self.questions = run, Questions(run)
        self.written: dict[int, Answers] = run.written.lanes

    def records(self) -> Iterator[Record]:
        """A Judged event for each lane whose greedy text is not the first lane's."""
        done = [lane for lane in self.written if lane in self.run.plans and lane not in self.run.out]
        compared = [lane for lane in done if self.run.lanes[lane].backend.needs_model]
        if 0 not in compared or self.run.experiment.workload.temperature > 0:
            return
        for lane in sorted(compared)[1:]:
            if found := parting(self.written[lane], self.written[0]):
                equality = {"identical": False, "first_divergence": found[1], "request": found[0]}
                equality |= yield from self._fate(lane, *found)
                yield Record(lane, None, Judged(time.perf_counter(), {"equality": equality}))

    def _fate(self, lane: int, request: int, place: int) -> Generator[Record, None, dict[str, Any]]:
        """Lanes that compute with different numbers part sooner or later; between others it is looked into."""
        plans = self.run.plans
        if plans[lane].loss() != plans[0].loss():
            return {"expected": True}
        margin = yield from self._margin(lane, self.run.lanes[0], (request, place), self.written[lane], self.written[0])
        try:
            checked = yield from self._checked(lane, (request, place), margin)
        except Refusal as refusal:
            checked = {"identical": None, "why": refusal.why}
        return {"margin": margin, "float32": checked}

    def _checked(self, lane: int, place: tuple[int, int], margin: Any) -> Generator[Record, None, dict[str, Any]]:
        """Both lanes again in float32 and without loss, up to past that token."""
        specs = [self.run.lanes[number].exact() for number in (0, lane)]
        if self.questions.plan(specs[0]).loss() == self.run.plans[0].loss():
            return {"identical": False, "first_divergence": place[1], "margin": margin}
        answers = []
        for spec in specs:
            yield Record(lane, None, Phase(time.perf_counter(), "running again in float32"))
            found = yield from self.questions.again(lane, spec, self._workload(place[1]))
            if isinstance(found, Failed):
                return {"identical": None, "why": found.why}
            answers.append(found)
        apart = parting(answers[1], answers[0])
        if apart is None:
            return {"identical": True}
        margin = yield from self._margin(lane, specs[0], apart, answers[1], answers[0])
        return {"identical": False, "first_divergence": apart[1], "margin": margin}

    def _workload(self, place: int) -> Any:
        """No longer than needed; lengths that are spread stay as they were drawn."""
        workload = self.run.experiment.workload
        few = workload.max_new_tokens if workload.spread else min(workload.max_new_tokens, place + 1 + FURTHER)
        return workload.model_copy(update={"max_new_tokens": few})

    def _margin(
        self, lane: int, reference: Lane, at: tuple[int, int], mine: Answers, theirs: Answers
    ) -> Generator[Record, None, dict[str, Any] | None]:
        """How sure the reference was at the place where the texts part; None where that cannot be read."""
        request, place = at
        if place >= len(mine.get(request, ())):
            return None
        asked = {"request": request, "written": list(theirs[request][:place]), "other": mine[request][place]}
        end = yield from self.questions.ask(lane, reference, {"do": "look", **asked})
        return None if isinstance(end, Failed) else end.effective
