"""Racing: from a press on Run to the verdict, and whatever else the stage shows: replays and ended runs."""

import json
import uuid
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import gradio as gr

from components import figures
from components.bargain import bargain
from components.discretion import discreet
from components.history import History
from components.page.form import Form, said, setup
from components.page.opening import Opening, shows
from components.page.question import key, reasons
from components.page.readiness import Unready
from components.pictures import pictures
from components.race import Race, line, replay
from components.summary import summary
from components.translator import translations
from components.watch import ENDED, follow
from engine.measure.why.attempts import attempted, wording
from engine.refusal import Refusal
from engine.run.recordings import recorded
from engine.spec import Experiment


class Logs:
    """What the stage is sent of a run: an append-only log of view lines."""

    def __init__(self, jobs: Any):
        self.jobs = jobs

    def stream(self, run: str, replay: str = "") -> AsyncIterator[str]:
        """Parts of a run's log: as it goes on, or of a `replay` that is `paced` or `still`. Raises Refusal."""
        return _whole(self.recorded(run, replay == "paced")) if replay else self.follow(run)

    def follow(self, run: str) -> AsyncIterator[str]:
        """The log of a run that is going on, part by part as it grows. Raises Refusal for an unknown run."""
        experiment = self.jobs.experiment(run)
        race = Race(experiment)
        opening = race.start(**self._opening(run, experiment))
        told = follow(self.jobs, run, race, opening, line, partial(self._closing, run))
        return _said(told, discreet(experiment))

    def recorded(self, run: str, paced: bool = True) -> str:
        """The whole log of a run that has ended, to be replayed by the browser's clock. Raises Refusal."""
        experiment = self.jobs.experiment(run)
        opening = Race(experiment).start(**self._opening(run, experiment, replay=True, paced=paced))
        typical = self._typical(run, paced) * (paced or self._ran(run))
        return discreet(experiment)(opening + typical + self._end(run, self.jobs.state(run)))

    def _opening(self, run: str, experiment: Experiment, **values: Any) -> dict[str, Any]:
        result = self.jobs.result(run)
        shown = json.loads(setup(experiment.lanes, experiment.model, figures.crowded(experiment), result))
        origin = found.label if (found := recorded(run)) else ""
        shown |= {"recorded": origin, "key": key(experiment), "why": reasons(experiment)}
        return {"run": run, "log": uuid.uuid4().hex, "replay": False, **shown, **values}

    def _closing(self, run: str, state: str) -> str:
        return self._typical(run) * self._ran(run) + self._end(run, state)

    def _end(self, run: str, state: str) -> str:
        result, ran = self.jobs.result(run), self._ran(run)
        told = translations(self.jobs.experiment(run), self.jobs.records(run, 0)) if ran else []
        shown = {**summary(result, ENDED[state]), "pictures": pictures(result), "translations": told}
        shown["bargain"] = bargain(result)
        return line("end", replayable=ran, **shown)

    def _ran(self, run: str) -> bool:
        """Whether any round has been measured."""
        result = self.jobs.result(run)
        return bool(result) and any(lane["rounds"] for lane in result["lanes"])

    def _typical(self, run: str, paced: bool = False) -> str:
        return replay(self.jobs.experiment(run), self.jobs.records(run, 0), paced)


class Racing:
    """The events of the stage and of the two buttons."""

    def __init__(self, jobs: Any, form: Form, runs: History, opening: Opening):
        self.jobs, self.form, self.runs, self.opening = jobs, form, runs, opening
        self.logs = Logs(jobs)

    def wire(self, stage: gr.HTML, owner: gr.BrowserState, restored: Any) -> None:
        """`restored` is the event after which the page shows what is going on."""
        form = self.form
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        shown, filled = [stage, form.message], form.filled(stage)
        resting = [form.run, form.stop, self.runs.list]

        restored.then(self.attach, [owner], [stage, *resting], **quiet)
        pressed = {"trigger_mode": "once", **quiet}
        form.run.click(self.start, [owner, *form.inputs], [stage, form.message, form.run, form.stop], **pressed)
        stage.ended(self.rest, [owner], resting, **quiet)
        form.stop.click(self.halt, [owner], [form.message], **quiet)
        self.runs.list.pick(self.pick, [owner], shown, **quiet)
        stage.replay(self.pick, [owner], shown, **quiet)
        stage.reuse(self.reuse, [owner], filled, **quiet)
        stage.attempt(self.attempt, [owner], filled, **quiet)

    def start(self, owner: str, *values: Any) -> tuple:
        """Run pressed: submit, or go on watching what this visitor has running already."""
        try:
            run = self.jobs.current(owner) or self.jobs.submit(self.form.ready(values), owner)
        except Refusal as refusal:
            kind = "problem unready" if isinstance(refusal, Unready) else "problem"
            return gr.skip(), said(str(refusal), kind), *_buttons(False)
        return shows(run), "", *_buttons(True)

    def attach(self, owner: str, request: gr.Request) -> tuple:
        """Page opened: show a run where there is one to show."""
        return self.opening.stage(owner, request), *self.rest(owner)

    def rest(self, owner: str) -> tuple:
        """The buttons and the list of runs as they are now."""
        return *_buttons(bool(self.jobs.current(owner))), self.runs.listed(owner)

    def pick(self, owner: str, event: gr.EventData) -> tuple:
        """Replay a run of the history."""
        if self.jobs.current(owner):
            return gr.skip(), said("Your run is still going. Replay an old one when it has ended, or press Stop.")
        try:
            self.jobs.experiment(event.run)
        except Refusal as refusal:
            return gr.skip(), said(str(refusal), "problem")
        return shows(event.run, "paced"), ""

    def reuse(self, owner: str, event: gr.EventData) -> list[Any]:
        """Put a run's setup into the form."""
        return self.form.fill(self.opening.setup(event.run, owner))

    def attempt(self, owner: str, event: gr.EventData) -> list[Any]:
        """Put a run's setup into the form, with what a card of its lane says to try next."""
        experiment, result = self.opening.setup(event.run, owner), self.jobs.result(event.run)
        lane = result["lanes"][event.lane]
        change = lane["findings"][event.card]["next"]
        text = f"Lane {lane['name']} is changed: {wording(change)}. Press Run to see what it does."
        return self.form.fill(attempted(experiment, lane["name"], change).model_copy(update={"why": text}))

    def halt(self, owner: str) -> str:
        if run := self.jobs.current(owner):
            self.jobs.cancel(run, owner)
        return ""


async def _whole(log: str) -> AsyncIterator[str]:
    yield log


async def _said(parts: AsyncIterator[str], veil: Callable[[str], str]) -> AsyncIterator[str]:
    async for part in parts:
        yield veil(part)


def _buttons(running: bool) -> tuple:
    return gr.update(interactive=not running), gr.update(interactive=running)
