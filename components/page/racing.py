"""Racing: from a press on Run to the verdict, and whatever else the stage shows: replays and ended runs."""

import json
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Any

import gradio as gr

from components import figures
from components.history import History
from components.page.form import Form, said, setup
from components.pictures import pictures
from components.race import Race, line, replay
from components.summary import summary
from components.translator import translations
from components.watch import ENDED, follow
from engine.measure.why.attempts import attempted, wording
from engine.refusal import Refusal
from engine.spec import Experiment

BROKEN = "Something broke on the server; its log says what. Press Run to try again."
log = logging.getLogger("pitlane.page")


class Logs:
    """What the stage is sent of a run: an append-only log of view lines."""

    def __init__(self, jobs: Any):
        self.jobs = jobs

    def follow(self, run: str) -> AsyncIterator[str]:
        """The log of a run that is going on, whole each time it grew."""
        experiment = self.jobs.experiment(run)
        race = Race(experiment)
        opening = race.start(**self._opening(run, experiment))
        return follow(self.jobs, run, race, opening, line, partial(self._closing, run))

    def recorded(self, run: str, paced: bool = True) -> str:
        """The whole log of a run that has ended, to be replayed by the browser's clock. Raises Refusal."""
        experiment = self.jobs.experiment(run)
        opening = Race(experiment).start(**self._opening(run, experiment, replay=True, paced=paced))
        return opening + self._typical(run, paced) * paced + self._closing(run, self.jobs.state(run))

    def _opening(self, run: str, experiment: Experiment, **values: Any) -> dict[str, Any]:
        shown = json.loads(setup(experiment.lanes, figures.crowded(experiment)))
        return {"run": run, "log": uuid.uuid4().hex, "replay": False, **shown, **values}

    def _closing(self, run: str, state: str) -> str:
        result = self.jobs.result(run)
        ran = any(one["rounds"] for one in result["lanes"]) if result else False
        told = translations(self.jobs.experiment(run), self.jobs.records(run, 0)) if ran else []
        shown = {**summary(result, ENDED[state]), "pictures": pictures(result), "translations": told}
        return self._typical(run) * ran + line("end", replayable=ran, **shown)

    def _typical(self, run: str, paced: bool = False) -> str:
        return replay(self.jobs.experiment(run), self.jobs.records(run, 0), paced)


class Racing:
    """The events of the stage and of the two buttons."""

    def __init__(self, jobs: Any, form: Form, runs: History):
        self.jobs, self.form, self.runs = jobs, form, runs
        self.logs = Logs(jobs)

    def wire(self, stage: gr.HTML, owner: gr.BrowserState, restored: Any) -> None:
        """`restored` is the event after which the page shows what is going on."""
        form = self.form
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        watching = {**quiet, "concurrency_limit": None}
        live = [stage, form.message, form.run, form.stop, self.runs.list]
        shown, filled = [stage, form.message], form.filled(stage)

        restored.then(self.attach, [owner], live, **watching)
        stage.heal(self.attach, [owner], live, **watching)
        form.run.click(self.start, [owner, *form.inputs], live, trigger_mode="once", **watching)
        form.stop.click(self.halt, [owner], [form.message], **quiet)
        self.runs.list.pick(self.pick, [owner], shown, **quiet)
        stage.replay(self.pick, [owner], shown, **quiet)
        stage.reuse(self.reuse, [owner], filled, **quiet)
        stage.attempt(self.attempt, [owner], filled, **quiet)
        gr.api(self.api, api_name="run", concurrency_limit=None)

    async def start(self, owner: str, *values: Any) -> AsyncIterator[tuple]:
        """Run pressed: submit, or go on watching what this visitor has running already."""
        try:
            run = self.jobs.current(owner) or self.jobs.submit(self.form.experiment(values), owner)
        except Refusal as refusal:
            yield gr.skip(), said(str(refusal), "problem"), *_buttons(False), gr.skip()
            return
        async for shown in self._watch(run, owner):
            yield shown

    async def attach(self, owner: str) -> AsyncIterator[tuple]:
        """Page opened or connection healed: go on watching, or show the end of a recent run."""
        if run := self.jobs.current(owner):
            async for shown in self._watch(run, owner):
                yield shown
            return
        shown = gr.skip()
        with suppress(Refusal):  # its record is damaged
            last = self.runs.recent(owner)
            shown = self.logs.recorded(last, paced=False) if last and self.jobs.state(last) in ENDED else shown
        yield shown, gr.skip(), *_buttons(False), self.runs.listed(owner)

    async def _watch(self, run: str, owner: str) -> AsyncIterator[tuple]:
        first = True
        try:
            async for text in self.logs.follow(run):
                buttons = _buttons(True) if first else (gr.skip(), gr.skip())
                yield text, "" if first else gr.skip(), *buttons, gr.skip()
                first = False
            yield text, gr.skip(), *_buttons(False), self.runs.listed(owner)
        except Exception:
            log.exception("watching run %s", run)
            yield gr.skip(), said(BROKEN, "problem"), *_buttons(False), gr.skip()

    def pick(self, owner: str, event: gr.EventData) -> tuple:
        """Replay a run of the history."""
        if self.jobs.current(owner):
            return gr.skip(), said("Your run is still going. Replay an old one when it has ended, or press Stop.")
        try:
            return self.logs.recorded(event.run), ""
        except Refusal as refusal:
            return gr.skip(), said(str(refusal), "problem")

    def reuse(self, owner: str, event: gr.EventData) -> list[Any]:
        """Put a run's setup into the form."""
        return self.form.fill(self.jobs.experiment(event.run))

    def attempt(self, owner: str, event: gr.EventData) -> list[Any]:
        """Put a run's setup into the form, with what a card of its lane says to try next."""
        experiment, result = self.jobs.experiment(event.run), self.jobs.result(event.run)
        lane = result["lanes"][event.lane]
        change = lane["findings"][event.card]["next"]
        text = f"Lane {lane['name']} is changed: {wording(change)}. Press Run to see what it does."
        return self.form.fill(attempted(experiment, lane["name"], change).model_copy(update={"why": text}))

    def halt(self, owner: str) -> str:
        if run := self.jobs.current(owner):
            self.jobs.cancel(run, owner)
        return ""

    async def api(self, experiment: str) -> AsyncIterator[str]:
        """Run an experiment (JSON) and yield the growing log of view lines (JSONL)."""
        try:
            run = self.jobs.submit(Experiment.read(json.loads(experiment)), f"api-{uuid.uuid4().hex}")
        except (Refusal, ValueError) as error:
            raise gr.Error(str(error), print_exception=False) from None
        async for text in self.logs.follow(run):
            yield text


def _buttons(running: bool) -> tuple:
    return gr.update(interactive=not running), gr.update(interactive=running)
