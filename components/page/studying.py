"""Studying: lessons as runs of the visitor's own, and what a reader is told when one has ended."""

import json
import time
from typing import Any

import gradio as gr
from fastapi import APIRouter
from fastapi.responses import JSONResponse

from components.page.form import Form
from components.page.racing import Racing
from components.path import path
from components.watch import ENDED
from engine.lessons import Lesson, lessons
from engine.refusal import Refusal


class Studying:
    """The room of the lessons. With `simulated`, those that demonstrate it without a model are there too."""

    def __init__(self, jobs: Any, form: Form, racing: Racing, simulated: bool = False):
        self.jobs, self.form, self.racing = jobs, form, racing
        self.lessons = lessons(simulated)

    def build(self) -> None:
        self.path = path(self.lessons)

    def wire(self, owner: gr.BrowserState, stage: gr.HTML) -> None:
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        filled, form, runs = self.form.filled(stage), self.form, self.racing.runs
        self.path.begin(self.begin, [owner], [self.path], trigger_mode="once", **quiet)
        self.path.halt(self.racing.halt, [owner], [form.message], **quiet)
        self.path.ended(self.racing.rest, [owner], [form.run, form.stop, runs.list], **quiet)
        self.path.further(self.further, None, filled, **quiet)
        self.path.reuse(self.racing.reuse, [owner], filled, **quiet)
        self.path.attempt(self.racing.attempt, [owner], filled, **quiet)

    def lesson(self, name: str) -> Lesson:
        if name not in self.lessons:
            raise Refusal(f"There is no lesson {name}.", "Reload the page.")
        return self.lessons[name]

    def begin(self, owner: str, event: gr.EventData) -> str:
        """A prediction is made: run its lesson. The answer is another each time, so that the page sees each."""
        answer = {"lesson": event.lesson, "at": time.time()}
        try:
            if self.jobs.current(owner):
                raise Refusal("A run of yours is going on already.", "Wait for its end, or stop it in the Race.")
            return json.dumps({**answer, "run": self.jobs.submit(self.lesson(event.lesson).experiment(), owner)})
        except Refusal as refusal:
            return json.dumps({**answer, "problem": str(refusal)})

    def further(self, event: gr.EventData) -> list[Any]:
        """Put what a lesson says to try next into the form."""
        try:
            return self.form.fill(self.lesson(event.lesson).further(int(event.number)))
        except (Refusal, IndexError) as error:
            raise gr.Error(str(error), print_exception=False) from None

    def told(self, name: str, run: str, guess: str) -> dict[str, Any]:
        """What the reader learns from a run that has ended. Raises Refusal."""
        lesson = self.lesson(name)
        if self.jobs.state(run) not in ENDED:
            raise Refusal("The run is still going.", "Ask again when it has ended.")
        if self.jobs.experiment(run) != lesson.experiment():
            raise Refusal("This run is not this lesson's.", "Start the lesson anew.")
        told = lesson.told(self.jobs.result(run))
        return {**told, **lesson.mark(told, lesson.prediction.accept(_read(guess)))}

    def routes(self) -> APIRouter:
        """Addresses that the page reads from."""
        router = APIRouter(prefix="/pitlane/lessons")

        @router.get("/{name}/{run}")
        def told(name: str, run: str, guess: str) -> JSONResponse:
            """Who knows a run's id may read it."""
            try:
                return JSONResponse(self.told(name, run, guess), headers={"Cache-Control": "no-store"})
            except Refusal as refusal:
                return JSONResponse({"problem": str(refusal)}, status_code=404)

        return router


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
