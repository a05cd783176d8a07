"""The page: every part in its place, and what happens when."""

import json
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from components import figures, lab_figures, pareto, roofline, waterfall, workload
from components.explore import Explore
from components.files import KINDS, kinds
from components.forecast import forecasts, note
from components.header import header
from components.history import History
from components.labs import Labs
from components.lanes import Lanes, badges, checked, collected, copied, grown, shrunk, spread
from components.lessons import lessons
from components.pictures import pictures
from components.race import Race, line, replay
from components.stage import stage
from components.summary import TIPS, summary
from components.translator import translations
from components.watch import ENDED, follow
from engine.measure.why.attempts import attempted, wording
from engine.presets import presets
from engine.refusal import Refusal
from engine.spec import MAX_LANES, Experiment, Lane, Workload

FIRST = {
    "rounds": 8,
    "workload": {"prompts": workload.EXAMPLES["Repeat"], "max_new_tokens": 64},
    "lanes": {"A": {}, "B": {"opts": {"prompt_lookup": {}}}},
}
FOLD = "() => { document.querySelector('#presets input').checked = false; }"
"""A question that was chosen folds the list of questions."""
BROKEN = "Something broke on the server; its log says what. Press Run to try again."
log = logging.getLogger("pitlane.page")


def setup(lanes: dict[str, Lane], crowd: bool = False, **more: Any) -> str:
    """What the stage shows while nothing runs, as JSON."""
    cards = [
        {"name": name, "badges": badges(one), "simulated": one.backend.name() == "simulated"}
        for name, one in lanes.items()
    ]
    return json.dumps({"lanes": cards, "tips": TIPS, "figures": figures.figures(list(lanes), crowd), **more})


class Page:
    """Holds the widgets and the jobs; the methods are the events."""

    def __init__(self, jobs: Any):
        self.jobs = jobs
        self.first = Experiment.read(FIRST)
        self.runs = History(jobs, KINDS)
        self.explore = Explore(jobs, pareto.picture, waterfall.waterfall, self.experiment, self.fill)

    def build(self) -> gr.Blocks:
        with gr.Blocks(title="Pitlane", analytics_enabled=False, fill_width=True, delete_cache=(3600, 3600)) as blocks:
            self.owner = gr.BrowserState("", storage_key="pitlane-owner", secret="pitlane")
            header()
            with gr.Row(elem_id="presets"):
                gr.HTML(f'<label><input type="checkbox" /><span>All {len(presets())} questions</span></label>')
                self.presets = {name: self._preset(name, one) for name, one in presets().items()}
            with gr.Row(elem_id="floor"):
                with gr.Column(elem_id="rail"):
                    self._rail()
                with gr.Column(elem_id="track"):
                    self.stage = stage(setup(self.first.lanes))
                    self.history = self.runs.build(kinds())
                    lessons()
            self.explore.build()
            self._labs()
            self._wire(blocks)
        return blocks.queue(max_size=128, default_concurrency_limit=16)

    def _preset(self, name: str, preset: Experiment) -> gr.Button:
        return gr.Button(preset.title, elem_classes=["chip"], elem_id=f"preset-{name}", size="sm")

    def _rail(self) -> None:
        self.work = workload.editor(self.first)
        with gr.Row(elem_id="examples"):
            self.examples = {title: gr.Button(title, elem_classes=["chip"], size="sm") for title in workload.EXAMPLES}
        self.about = gr.HTML(workload.about(self.first.model), elem_id="about")
        with gr.Row(elem_id="lengths"):
            self.work |= workload.lengths(self.first)
        with gr.Row(elem_id="go"):
            self.run = gr.Button("Run", variant="primary", elem_id="run", interactive=False)
            self.stop = gr.Button("Stop", elem_id="stop", interactive=False)
        self.message = gr.HTML("", elem_id="message")
        self.lanes = Lanes(self.first.lanes)
        with gr.Accordion("Sampling and template", open=False, elem_id="sampling"):
            self.work |= workload.sampling(self.first)
        with gr.Accordion("Requests and arrivals", open=False, elem_id="requests-arrivals"):
            self.work |= workload.requests(self.first)

    def _labs(self) -> None:
        """The second place of the page, below the race, with its own buttons and its own picture."""
        room = Labs(self.jobs, lab_figures.pictures)
        room.build()
        room.wire(self.owner)

    def _wire(self, blocks: gr.Blocks) -> None:
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        form = [*self.work.values(), *self.lanes.inputs]
        noted = [*self.lanes.notes, self.stage, self.message]
        filled = [self.about, *self.work.values(), *self.lanes.outputs, *noted]
        live = [self.stage, self.message, self.run, self.stop, self.history]
        watching = {**quiet, "concurrency_limit": None}

        restored = blocks.load(self.restore, [self.owner], [self.owner, *filled], **quiet)
        restored.then(self.attach, [self.owner], live, **watching)
        self.explore.wire(self.owner, self.lanes.tab, form, filled, restored)
        self.stage.heal(self.attach, [self.owner], live, **watching)
        self.run.click(self.start, [self.owner, *form], live, trigger_mode="once", **watching)
        self.stop.click(self.halt, [self.owner], [self.message], **quiet)
        self.history.pick(self.pick, [self.owner], [self.stage, self.message], **quiet)
        self.runs.wire(self.owner)
        self.stage.replay(self.pick, [self.owner], [self.stage, self.message], **quiet)
        self.stage.reuse(self.reuse, [self.owner], filled, **quiet)
        self.stage.attempt(self.attempt, [self.owner], filled, **quiet)

        gr.on(self.lanes.edits(), self.note, form, noted, trigger_mode="always_last", **quiet)
        self.work["model"].input(self.note, form, noted, **quiet)
        self.work["model"].change(workload.about, [self.work["model"]], [self.about], **quiet)
        for name, button in self.presets.items():
            button.click(partial(self.fill, presets()[name]), None, filled, js=FOLD, **quiet)
        for title, button in self.examples.items():
            button.click(partial(str, workload.EXAMPLES[title]), None, [self.work["workload.prompts"]], **quiet)
        for button, change in ((self.lanes.add, grown), (self.lanes.copy, copied), (self.lanes.remove, shrunk)):
            button.click(partial(self.change, change), [self.lanes.tab, *form], [*self.lanes.outputs, *noted], **quiet)
        gr.api(self.api, api_name="run", concurrency_limit=None)

    # the form

    def _read(self, form: tuple[Any, ...]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        work = dict(zip(self.work, form[: len(self.work)], strict=True))
        return work, self.lanes.read(list(form[len(self.work) :]))

    def experiment(self, form: tuple[Any, ...]) -> Experiment:
        """The experiment that the form says. Raises Refusal."""
        work, rows = self._read(form)
        lanes = {name: one.model_dump(mode="json") for name, one in collected(rows).items()}
        made = Experiment.read({**workload.asked(work), "lanes": lanes})
        for preset in presets().values():
            extra = {"title": preset.title, "why": preset.why, "expect": preset.expect}
            if made.model_copy(update=extra) == preset:
                return preset
        return made

    def fill(self, experiment: Experiment) -> list[Any]:
        """Show an experiment in the form."""
        work = workload.shown(experiment)
        rows = spread(experiment.lanes)
        head = [workload.about(experiment.model), *(work[address] for address in self.work)]
        notes = self._notes(rows, experiment.model, experiment.workload)
        return [*head, *self.lanes.write(rows, len(rows) - 1), *notes, _said(experiment.why)]

    def note(self, *form: Any) -> list[Any]:
        """Say under each lane why it cannot run, and show the lanes on the stage."""
        work, rows = self._read(form)
        return [*self._notes(rows, str(work["model"] or ""), workload.read(work)), gr.skip()]

    def _notes(self, rows: list[dict[str, Any]], model: str, work: Workload | None) -> list[Any]:
        """Beside each lane why it cannot run, or what it will take; on the stage the best that can be had."""
        sentences, lanes = checked(rows, model)
        told = forecasts(lanes, model, work)
        notes = [note(text, told.get(str(row["name"]))) for text, row in zip(sentences, rows, strict=True)]
        drawn = roofline.picture(list(lanes), [one and one["ceiling"] for one in told.values()])
        shown = {"pictures": {"roofline": drawn}} if drawn else {}
        preview = gr.update(setup=setup(lanes, **shown)) if len(lanes) == len(rows) else gr.skip()
        return [*notes, *[""] * (MAX_LANES - len(rows)), preview]

    def change(self, change: Any, tab: str, *form: Any) -> list[Any]:
        """Add, copy or remove a lane."""
        work, rows = self._read(form)
        rows, tab, text = change(rows, int(tab))
        notes = self._notes(rows, str(work["model"] or ""), workload.read(work))
        return [*self.lanes.write(rows, tab), *notes, _said(text)]

    # the race

    async def start(self, owner: str, *form: Any) -> AsyncIterator[tuple]:
        """Run pressed: submit, or go on watching what this visitor has running already."""
        try:
            run = self.jobs.current(owner) or self.jobs.submit(self.experiment(form), owner)
        except Refusal as refusal:
            yield gr.skip(), _said(str(refusal), "problem"), *_buttons(False), gr.skip()
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
            shown = self._recorded(last, paced=False) if last and self.jobs.state(last) in ENDED else shown
        yield shown, gr.skip(), *_buttons(False), self.runs.listed(owner)

    async def _watch(self, run: str, owner: str) -> AsyncIterator[tuple]:
        first = True
        try:
            async for text in self._follow(run):
                yield (
                    text,
                    "" if first else gr.skip(),
                    *(_buttons(True) if first else (gr.skip(), gr.skip())),
                    gr.skip(),
                )
                first = False
            yield text, gr.skip(), *_buttons(False), self.runs.listed(owner)
        except Exception:
            log.exception("watching run %s", run)
            yield gr.skip(), _said(BROKEN, "problem"), *_buttons(False), gr.skip()

    def _follow(self, run: str) -> AsyncIterator[str]:
        experiment = self.jobs.experiment(run)
        race = Race(experiment)
        opening = race.start(**self._opening(run, experiment))
        return follow(self.jobs, run, race, opening, line, partial(self._closing, run))

    def _opening(self, run: str, experiment: Experiment, **values: Any) -> dict[str, Any]:
        shown = json.loads(setup(experiment.lanes, figures.crowded(experiment)))
        return {"run": run, "log": uuid.uuid4().hex, "replay": False, **shown, **values}

    def _closing(self, run: str, state: str) -> str:
        result = self.jobs.result(run)
        ran = any(one["rounds"] for one in result["lanes"]) if result else False
        said = translations(self.jobs.experiment(run), self.jobs.records(run, 0)) if ran else []
        shown = {**summary(result, ENDED[state]), "pictures": pictures(result), "translations": said}
        return self._typical(run) * ran + line("end", replayable=ran, **shown)

    def _typical(self, run: str, paced: bool = False) -> str:
        return replay(self.jobs.experiment(run), self.jobs.records(run, 0), paced)

    def _recorded(self, run: str, paced: bool = True) -> str:
        """The whole log of a run that has ended, to be replayed by the browser's clock."""
        experiment = self.jobs.experiment(run)
        opening = Race(experiment).start(**self._opening(run, experiment, replay=True, paced=paced))
        return opening + self._typical(run, paced) * paced + self._closing(run, self.jobs.state(run))

    def pick(self, owner: str, event: gr.EventData) -> tuple:
        """Replay a run of the history."""
        if self.jobs.current(owner):
            return gr.skip(), _said("Your run is still going. Replay an old one when it has ended, or press Stop.")
        try:
            return self._recorded(event.run), ""
        except Refusal as refusal:
            return gr.skip(), _said(str(refusal), "problem")

    def reuse(self, owner: str, event: gr.EventData) -> list[Any]:
        """Put a run's setup into the form."""
        return self.fill(self.jobs.experiment(event.run))

    def attempt(self, owner: str, event: gr.EventData) -> list[Any]:
        """Put a run's setup into the form, with what a card of its lane says to try next."""
        experiment, result = self.jobs.experiment(event.run), self.jobs.result(event.run)
        lane = result["lanes"][event.lane]
        change = lane["findings"][event.card]["next"]
        said = f"Lane {lane['name']} is changed: {wording(change)}. Press Run to see what it does."
        return self.fill(attempted(experiment, lane["name"], change).model_copy(update={"why": said}))

    def restore(self, owner: str) -> list[Any]:
        """Page opened: who this is, and the setup of what they have running or just ran."""
        owner = owner or uuid.uuid4().hex
        recent = self.jobs.current(owner) or self.runs.recent(owner)
        return [owner, *self.fill(self.jobs.experiment(recent) if recent else self.first)]

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
        async for text in self._follow(run):
            yield text


def _buttons(running: bool) -> tuple:
    return gr.update(interactive=not running), gr.update(interactive=running)


def _said(text: str, kind: str = "hint") -> str:
    return f"<p class='{kind}' role='alert'>{escape(text)}</p>" if text else ""
