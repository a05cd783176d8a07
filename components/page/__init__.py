"""The page: every part in its place, and who is looking at it."""

import os
from typing import Any

import gradio as gr
from fastapi import APIRouter

from components import header, heatmap, lab_figures, labs, lanes, links, pareto, waterfall, workload
from components.explore import Explore
from components.files import KINDS, kinds
from components.history import History
from components.lessons import lessons
from components.page.api import Programs
from components.page.form import Form, setup
from components.page.opening import Opening
from components.page.racing import Racing
from components.page.studying import Studying
from components.page.workshop import Gathering
from components.stage import stage
from engine.spec import Experiment

FIRST = {
    "rounds": 8,
    "workload": {"prompts": workload.EXAMPLES["Repeat"], "max_new_tokens": 64},
    "lanes": {"A": {}, "B": {"opts": {"prompt_lookup": {}}}},
}


ROOMS = {"race": "Race", "lessons": "Lessons", "explore": "Explore", "workshop": "Workshop"}
"""The rooms of the page by the name in its address, in the order of the way to them; the last only in a workshop."""

STUDIED = {"pareto": pareto.picture, "waterfall": waterfall.waterfall, "heatmap": heatmap.heatmap}


def rules() -> str:
    """CSS that follows from what there is: parts, labs and rooms."""
    return lanes.rules() + labs.rules() + header.rules(ROOMS)


class Page:
    """Holds the parts and the jobs, and the workshop where this server holds one."""

    def __init__(self, jobs: Any, workshop: Any = None):
        self.jobs = jobs
        self.first = Experiment.read(FIRST)
        self.form = Form(self.first)
        self.runs = History(jobs, KINDS)
        self.opening = Opening(jobs, self.form, self.runs)
        self.racing = Racing(jobs, self.form, self.runs, self.opening)
        self.programs = Programs(jobs, self.racing.logs)
        self.explore = Explore(jobs, STUDIED, self.form.experiment, self.form.fill)
        self.labs = labs.Labs(jobs, lab_figures.pictures)
        simulated = os.environ.get("PITLANE_SIMULATED") == "1"
        self.studying = Studying(jobs, self.form, self.racing, simulated)
        self.gathering = Gathering(workshop, self.studying) if workshop else None

    def build(self) -> gr.Blocks:
        """With every message the browser brings the progress of all outputs up to date, though it is hidden: four
        hundred cost it 0.25 of a core at five messages a second. So all events are told to show it on one.
        """
        with gr.Blocks(title="Pitlane", analytics_enabled=False, fill_width=True, delete_cache=(3600, 3600)) as blocks:
            self.owner = gr.BrowserState("", storage_key="pitlane-owner", secret="pitlane")
            header.header({name: title for name, title in ROOMS.items() if name != "workshop" or self.gathering})
            header.limits()
            with header.room("race"):
                self.form.questions()
                with gr.Row(elem_id="floor"):
                    with gr.Column(elem_id="rail"):
                        self.form.build()
                        self.share = links.button()
                    with gr.Column(elem_id="track"):
                        self.stage = stage(setup(self.first.lanes, self.first.model))
                        self.runs.build(kinds())
                        lessons()
            with header.room("lessons"):
                self.studying.build()
            with header.room("explore"):
                self.explore.build()
                self.labs.build()
            if self.gathering:
                with header.room("workshop"):
                    self.gathering.build()
            self._wire(blocks)
        blocks.space_id = None  # for a Space's own header Gradio's page would ask other hosts
        for event in blocks.fns.values():
            event.show_progress_on = [self.owner]
        return blocks.queue(max_size=128, default_concurrency_limit=16)

    def _wire(self, blocks: gr.Blocks) -> None:
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        filled = self.form.filled(self.stage)
        restored = blocks.load(self.opening.restore, [self.owner], [self.owner, *filled], **quiet)
        self.form.wire(self.stage)
        self.racing.wire(self.stage, self.owner, restored)
        self.explore.wire(self.owner, self.form.lanes.tab, self.form.inputs, filled, restored)
        self.runs.wire(self.owner)
        self.share.ask(self.opening.link, self.form.inputs, [self.share], **quiet)
        self.labs.wire(self.owner, restored)
        self.programs.wire()
        self.studying.wire(self.owner, self.stage)
        if self.gathering:
            self.gathering.wire(self.owner, filled)

    def routes(self) -> list[APIRouter]:
        """What the browser reads beside the runs' logs."""
        held = [self.gathering.routes()] if self.gathering else []
        return [self.studying.routes(), self.programs.routes(), *held]
