"""Opening: what the page shows at first: what its address links to, else what this visitor has going or just ran."""

import json
import uuid
from typing import Any

import gradio as gr

from components.discretion import nameless
from components.history import History
from components.links import packed, unpacked
from components.page.form import Form, said
from components.watch import ENDED
from engine.refusal import Refusal
from engine.run.recordings import recorded
from engine.spec import Experiment

GIVEN = "This setup came with the link. Press Run to try it here."


def shows(run: str, replay: str = "") -> str:
    """The stage's value: which log it reads. Another number each time, so that the same one is read again."""
    return json.dumps({"run": run, "replay": replay, "asked": uuid.uuid4().hex})


class Opening:
    """Addresses are `/?run=ID`, which a recording's name may stand for, and `/?lanes=` with a packed experiment."""

    def __init__(self, jobs: Any, form: Form, runs: History):
        self.jobs, self.form, self.runs = jobs, form, runs

    def restore(self, owner: str, request: gr.Request) -> list[Any]:
        """Who this is, and what the form shows."""
        owner = owner or uuid.uuid4().hex
        try:
            return [owner, *self._linked(owner, request.query_params)]
        except Refusal as refusal:
            return [owner, *self.form.fill(self.form.first)[:-1], said(str(refusal), "problem")]

    def _linked(self, owner: str, query: Any) -> list[Any]:
        if "run" in query:
            return self.form.fill(self.setup(linked(query["run"]), owner))
        if "lanes" in query:
            return [*self.form.fill(unpacked(query["lanes"]))[:-1], said(GIVEN)]
        recent = self.jobs.current(owner) or self.runs.recent(owner)
        return self.form.fill(self.jobs.experiment(recent) if recent else self.form.first)

    def stage(self, owner: str, request: gr.Request) -> Any:
        """What the stage shows: a run that goes on, or the end of one."""
        query, run = request.query_params, self.jobs.current(owner)
        if "run" in query:
            run = linked(query["run"])
        elif not run and "lanes" not in query:
            run = self.runs.recent(owner)
        try:
            return shows(run, "still" * (self.jobs.state(run) in ENDED)) if run else gr.skip()
        except Refusal:  # `restore` has said so
            return gr.skip()

    def setup(self, run: str, owner: str) -> Experiment:
        """What was asked of a run; of another's without where the models lie. Raises Refusal for an unknown run."""
        experiment = self.jobs.experiment(run)
        return experiment if self.jobs.owner(run) == owner else nameless(experiment)

    def link(self, *values: Any) -> str:
        """What the form says as the end of a link, or why there is none."""
        try:
            made = {"lanes": packed(nameless(self.form.experiment(values)))}
        except Refusal as refusal:
            made = {"problem": str(refusal)}
        return json.dumps({**made, "asked": uuid.uuid4().hex})  # the same link twice is copied twice


def linked(run: str) -> str:
    """The id of the run that an address names."""
    found = recorded(run)
    return found.entry["id"] if found else run
