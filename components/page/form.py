"""The form: the workload and the lanes as a visitor sets them, to an experiment and back."""

import json
from functools import partial
from html import escape
from itertools import groupby
from typing import Any

import gradio as gr

from components import figures, roofline, workload
from components.forecast import forecasts, note
from components.lanes import Lanes, badges, cleared, collected, copied, grown, shrunk, spread
from components.page.question import asked
from components.page.readiness import Unready, checked, missing, number_format, problem, rung, unready
from components.summary import TIPS
from engine.presets import family, presets
from engine.spec import MAX_LANES, Experiment, Lane, Workload

FOLD = "() => { document.querySelector('#presets input').checked = false; }"
"""A question that was chosen folds the list of questions."""
ON_LOAD = """
const base = window.gradio_config.root + "/pitlane/";
import(base + "rail.js").then((rail) => rail.mount({ element }));
"""


def setup(
    lanes: dict[str, Lane], model: str, crowd: bool = False, result: dict[str, Any] | None = None, **more: Any
) -> str:
    """What the stage shows while nothing runs, as JSON; with the `result` of a run the formats are those that ran."""
    ran = {lane["name"]: lane["effective"] for lane in (result or {}).get("lanes", ())}
    cards = [
        {
            "name": name,
            "badges": badges(one),
            "format": number_format(one, model, ran.get(name)),
            "rung": rung(one, model, ran.get(name)),
            "simulated": one.backend.name() == "simulated",
        }
        for name, one in lanes.items()
    ]
    return json.dumps({"lanes": cards, "tips": TIPS, "figures": figures.figures(list(lanes), crowd), **more})


def said(text: str, kind: str = "hint") -> str:
    """A sentence of the page to the visitor, as HTML."""
    return f"<p class='{kind}' role='alert'>{escape(text)}</p>" if text else ""


class Form:
    """The widgets of the rail, and the questions above it. `first` is the experiment that they show at first."""

    def __init__(self, first: Experiment):
        self.first = first

    def questions(self) -> None:
        with gr.Row(elem_id="presets"):
            gr.HTML(f'<label><input type="checkbox" /><span>All {len(presets())} questions</span></label>')
            self.presets = {}
            for group, questions in groupby(presets().items(), key=lambda item: family(item[1])):
                gr.HTML(f"<h4>{escape(group)}</h4>", elem_classes=["question-family"])
                for name, one in questions:
                    self.presets[name] = gr.Button(
                        one.title, elem_classes=["chip"], elem_id=f"preset-{name}", size="sm"
                    )

    def build(self) -> None:
        self.work = workload.editor(self.first)
        with gr.Row(elem_id="examples"):
            self.examples = {title: gr.Button(title, elem_classes=["chip"], size="sm") for title in workload.EXAMPLES}
        self.about = gr.HTML(workload.about(self.first.model), elem_id="about")
        with gr.Row(elem_id="lengths"):
            self.work |= workload.lengths(self.first)
        with gr.Row(elem_id="go"):
            self.run = gr.Button("Run", variant="primary", elem_id="run", interactive=False)
            self.stop = gr.Button("Stop", elem_id="stop", interactive=False)
        self.message = gr.HTML("", elem_id="message", js_on_load=ON_LOAD)
        self.lanes = Lanes(self.first.lanes)
        with gr.Accordion("Sampling and template", open=False, elem_id="sampling"):
            self.work |= workload.sampling(self.first)
        with gr.Accordion("Requests and arrivals", open=False, elem_id="requests-arrivals"):
            self.work |= workload.requests(self.first)

    @property
    def inputs(self) -> list[Any]:
        """What an event must be given to read the form."""
        return [*self.work.values(), *self.lanes.inputs]

    def filled(self, stage: gr.HTML) -> list[Any]:
        """What an event that fills the form gives: see `fill`."""
        return [self.about, *self.work.values(), *self.lanes.outputs, *self.noted(stage)]

    def noted(self, stage: gr.HTML) -> list[Any]:
        return [*self.lanes.notes, stage, self.message]

    def wire(self, stage: gr.HTML) -> None:
        """Edits are told about at once; `stage` shows the lanes as they are set."""
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        noted, filled = self.noted(stage), self.filled(stage)
        gr.on(self.lanes.edits(), self.note, self.inputs, noted, trigger_mode="always_last", **quiet)
        work = self.work
        typed = [work["model"].input, work["workload.prompts"].blur, work["workload.max_new_tokens"].blur]
        gr.on(typed, self.note, self.inputs, noted, trigger_mode="always_last", **quiet)
        self.work["model"].change(workload.about, [self.work["model"]], [self.about], **quiet)
        for name, button in self.presets.items():
            button.click(partial(self.fill, presets()[name]), None, filled, js=FOLD, **quiet)
        for title, button in self.examples.items():
            button.click(partial(str, workload.EXAMPLES[title]), None, [self.work["workload.prompts"]], **quiet)
        changed = [*self.lanes.outputs, *noted]
        bar = self.lanes
        for button, change in ((bar.add, grown), (bar.copy, copied), (bar.clear, cleared), (bar.remove, shrunk)):
            button.click(partial(self.change, change), [self.lanes.tab, *self.inputs], changed, **quiet)

    def _read(self, values: tuple[Any, ...]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        work = dict(zip(self.work, values[: len(self.work)], strict=True))
        return work, self.lanes.read(list(values[len(self.work) :]))

    def experiment(self, values: tuple[Any, ...]) -> Experiment:
        """The experiment that the form says. Raises Refusal."""
        work, rows = self._read(values)
        lanes = {name: one.model_dump(mode="json") for name, one in collected(rows).items()}
        made = Experiment.read({**workload.asked(work), "lanes": lanes})
        for preset in presets().values():
            extra = {"title": preset.title, "why": preset.why, "expect": preset.expect}
            if made.model_copy(update=extra) == preset:
                return preset
        return made

    def ready(self, values: tuple[Any, ...]) -> Experiment:
        """The same, where all of its lanes can run here. Raises Refusal that names those which cannot."""
        made = self.experiment(values)
        if text := unready([*made.lanes], [problem(one, made.model) for one in made.lanes.values()]):
            raise Unready(text)
        return made

    def fill(self, experiment: Experiment) -> list[Any]:
        """Show an experiment in the form."""
        work = workload.shown(experiment)
        rows = spread(experiment.lanes)
        head = [workload.about(experiment.model), *(work[address] for address in self.work)]
        notes = self._notes(rows, experiment.model, experiment.workload)
        return [*head, *self.lanes.write(rows, len(rows) - 1), *notes, said(experiment.why)]

    def note(self, *values: Any) -> list[Any]:
        """Say under each lane why it cannot run, and show the lanes on the stage."""
        work, rows = self._read(values)
        return [*self._notes(rows, str(work["model"] or ""), workload.read(work)), gr.skip()]

    def _notes(self, rows: list[dict[str, Any]], model: str, work: Workload | None) -> list[Any]:
        """Beside each lane why it cannot run, or what it will take; on the stage the best that can be had."""
        sentences, lanes = checked(rows, model)
        told = forecasts(lanes, model, work)
        names = [str(row["name"]) for row in rows]
        cures = [missing(lanes.get(name), model) if text else [] for text, name in zip(sentences, names, strict=True)]
        notes = [note(text, told.get(name), cure) for text, name, cure in zip(sentences, names, cures, strict=True)]
        drawn = roofline.picture(list(lanes), [one and one["ceiling"] for one in told.values()])
        shown = {"pictures": {"roofline": drawn}} if drawn else {}
        shown |= {"unready": unready(names, sentences), **asked(model, work, lanes)}
        preview = gr.update(setup=setup(lanes, model, **shown)) if len(lanes) == len(rows) else gr.skip()
        return [*notes, *[""] * (MAX_LANES - len(rows)), preview]

    def change(self, change: Any, tab: str, *values: Any) -> list[Any]:
        """Add, copy or remove a lane."""
        work, rows = self._read(values)
        rows, tab, text = change(rows, int(tab))
        notes = self._notes(rows, str(work["model"] or ""), workload.read(work))
        return [*self.lanes.write(rows, tab), *notes, said(text)]
