"""The labs: choose one, set its knobs, run it, and watch its picture being filled."""

import asyncio
import json
import sqlite3
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from html import escape
from typing import Any

import gradio as gr
from gradio.components import Component
from pydantic.fields import FieldInfo

from components.controls import control, value
from engine.event import Phase
from engine.labs import Lab, Values, has_gpu
from engine.measure.machine import machine
from engine.measure.points import Points
from engine.presets import lab_presets
from engine.refusal import Refusal
from engine.registry import labs
from engine.run.lab import LabRun

ON_LOAD = """
const base = window.gradio_config.root + "/pitlane/";
const events = ["tile"];
import(base + "lab.js").then((lab) => lab.mount({ element, props, watch, trigger, base }));
"""
LOOK_S = 0.4
KEPT = 32
NO_GPU = "there is no NVIDIA GPU that a lab may use."


class Labs:
    """The widgets of all labs and what they do.

    `jobs` lends its workers, its history and its gate; `pictures` makes figures of a result.
    """

    def __init__(self, jobs: Any, pictures: Callable[[Values], list[dict[str, Any]]]):
        self.jobs, self.pictures = jobs, pictures
        self.runs: dict[str, LabRun] = {}
        self.names = list(labs())

    def build(self) -> None:
        with gr.Row(elem_id="labs"):
            with gr.Column(elem_id="lab-rail"):
                gr.HTML("<h2>Labs</h2><p>One technique at a time: measured over a grid, drawn, and explained.</p>")
                self.choice = gr.Radio(choices(), value="0", show_label=False, elem_id="lab-choice", label="Lab")
                with gr.Row(elem_id="lab-go"):
                    self.run = gr.Button("Run lab", variant="primary", elem_id="lab-run")
                    self.stop = gr.Button("Stop", elem_id="lab-stop", interactive=False)
                self.knobs = {name: self._knobs(number, name) for number, name in enumerate(self.names)}
            with gr.Column(elem_id="lab-track"):
                self.board = _board(self.idle(labs()[self.names[0]]()))

    def _knobs(self, number: int, name: str) -> dict[str, Component]:
        part = labs()[name]
        with gr.Column(elem_classes=["lab-editor", f"lab-{number}"]):
            paragraphs = "".join(f"<p>{escape(text)}</p>" for text in part.lesson().split("\n\n"))
            gr.HTML(f"<details open><summary>What is this?</summary>{paragraphs}</details>")
            return {
                knob: control(knob, field, elem_id=f"lab-{name}-{knob}", **_offered(knob, field))
                for knob, field in part.model_fields.items()
            }

    def wire(self, owner: gr.BrowserState, ready: Any) -> None:
        """After the event `ready` the owner is known."""
        quiet = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
        form = [owner, self.choice, *(widget for knobs in self.knobs.values() for widget in knobs.values())]
        shown = [self.board, self.run, self.stop]
        ready.then(self.attach, [owner], [*form[1:], self.board], **quiet)
        self.run.click(self.start, form, shown, trigger_mode="once", **quiet)
        self.board.tile(self.tile, form, shown, trigger_mode="always_last", **quiet)
        self.stop.click(self.halt, [owner], None, **quiet)
        changes = [self.choice, *form[2:]]
        gr.on([one.change for one in changes], self.preview, form, [self.board], trigger_mode="always_last", **quiet)

    def attach(self, owner: str) -> list[Any]:
        """Page opened: the visitor's last lab as it was set, with its result, if it has ended."""
        last = self.runs.get(owner)
        if not last or self._running(owner):
            return [gr.skip()] * (2 + sum(map(len, self.knobs.values())))
        kept = {last.lab.name(): last.lab.knobs()}
        knobs = [kept.get(name, {}).get(knob, gr.skip()) for name, own in self.knobs.items() for knob in own]
        return [str(self.names.index(last.lab.name())), *knobs, self.view(last.result())]

    def lab(self, choice: str, values: tuple[Any, ...]) -> Lab:
        """The lab that the form says. Raises Refusal."""
        shown, rest = {}, iter(values)
        for name, knobs in self.knobs.items():
            shown[name] = {knob: next(rest) for knob in knobs}
        part = labs()[self.names[int(choice)]]
        fields = part.model_fields
        chosen = part.configured({k: value(fields[k], one) for k, one in shown[part.name()].items()})
        if sentence := chosen.settle(machine()):
            raise Refusal(sentence)
        return chosen

    def preview(self, owner: str, choice: str, *values: Any) -> Any:
        """The empty picture of the lab that is set up; a result of the same setup stays."""
        if self._running(owner):
            return gr.skip()
        try:
            chosen = self.lab(choice, values)
        except Refusal as refusal:
            return refused(refusal)
        last = self.runs.get(owner)
        return self.view(last.result()) if last and last.lab == chosen else self.idle(chosen)

    async def start(self, owner: str, choice: str, *values: Any) -> AsyncIterator[tuple]:
        """Run lab pressed: measure the whole grid and show the picture as it fills."""
        try:
            run = self._open(self.lab(choice, values))
            if not self._running(owner):
                self.jobs.door.enter(owner)
        except Refusal as refusal:
            yield refused(refusal), *_buttons(False)
            return
        if self._running(owner):
            yield gr.skip(), *_buttons(True)
            return
        self._keep(owner, run)
        async for state in self._follow(run, lambda: self._remember(owner, run)):
            yield self.view(run.result(), state), *_buttons(state != "done")

    async def tile(self, owner: str, event: gr.EventData, choice: str, *values: Any) -> AsyncIterator[tuple]:
        """A tile of the user's own: measure it alone, and show it beside what is known."""
        last = self.runs.get(owner)
        if self._running(owner):
            yield gr.skip(), gr.skip(), gr.skip()
            return
        try:
            chosen = self.lab(choice, values)
            point = chosen.point(event.across, event.along, machine())
            run = self._open(chosen, [point])
        except Refusal as refusal:
            yield refused(refusal), *_buttons(False)
            return
        known = last.result() if last and last.lab == chosen else _empty(chosen)
        self.runs[owner] = run
        try:
            async for state in self._follow(run):
                own = run.result()
                yield (
                    self.view({**known, "own": own["points"][0], "why": own["why"]}, state),
                    *_buttons(state != "done"),
                )
        finally:
            if last:
                self._keep(owner, last)

    def view(self, result: Values, state: str = "done") -> str:
        """What the board draws, as JSON: sentences, figures, reference points, and the user's own tile."""
        shape = result["picture"]
        beside = [one for one in result["points"] if shape["across"]["key"] not in one or one.get("kind") == "untiled"]
        ended = state == "done"
        title = result["sentence"] if ended and result["status"] == "finished" else ""
        more = [result["why"], *result["left_out"], result["caution"]] if ended else result["left_out"]
        return _json(
            id=result.get("id", ""), state=state, lab=result["lab"], title=title, more=[text for text in more if text],
            rounds=[result["rounds"], result["knobs"]["repeats"]], shape=shape, figures=self.pictures(result),
            beside=[_figure(one, shape) for one in beside if "seconds" in one],
            own=_figure(result["own"], shape) if result.get("own", {}).get("seconds") else None,
            machine={"caches": result["machine"]["caches"]}, error=bool(result["why"]) and ended,
        )  # fmt: skip

    def idle(self, chosen: Lab) -> str:
        """The picture before anything is measured."""
        return self.view(_empty(chosen), "idle")

    def halt(self, owner: str) -> None:
        if run := self.runs.get(owner):
            run.cancel()

    def _open(self, chosen: Lab, wanted: list[Values] | None = None) -> LabRun:
        return LabRun(chosen, self.jobs.pool, self.jobs.store.gate_file, wanted)

    def _running(self, owner: str) -> bool:
        run = self.runs.get(owner)
        return bool(run and run.points.status == "running")

    def _keep(self, owner: str, run: LabRun) -> None:
        """Remember each visitor's last run, and forget the visitors of long ago."""
        self.runs.pop(owner, None)
        self.runs[owner] = run
        for old in list(self.runs)[:-KEPT]:
            del self.runs[old]

    async def _follow(self, run: LabRun, ended: Any = lambda: None) -> AsyncIterator[str]:
        """Yield waits, runs or done, each time something may have changed; leaving the page stops the run."""
        states = {"now": "waits"}

        def work() -> None:
            for event in run.events():
                states["now"] = "waits" if isinstance(event, Phase) and event.name == "wait" else "runs"
            ended()

        worker = threading.Thread(target=work, name="lab", daemon=True)
        worker.start()
        shown = None
        try:
            while worker.is_alive():
                known = (states["now"], run.points.measured)
                if known != shown:
                    yield states["now"]
                shown = known
                await asyncio.sleep(LOOK_S)
            yield "done"
        finally:
            run.cancel()

    def _remember(self, owner: str, run: LabRun) -> None:
        """A full disk costs the record, not the result."""
        try:
            self.jobs.store.add_lab(owner, run.result())
        except (sqlite3.Error, OSError) as error:
            self.jobs.warning = f"This lab could not be saved to the history: {error}."


def choices() -> list[tuple[str, str]]:
    """The labs by number, each named after its question."""
    asked = {one.lab.name(): one.title for one in lab_presets().values()}
    named = [f"{asked[name]} ({part.title})" if name in asked else part.title for name, part in labs().items()]
    return [(title, str(number)) for number, title in enumerate(named)]


def _offered(knob: str, field: FieldInfo) -> dict[str, Any]:
    """What a widget is told beside its field: without a GPU what needs one is not offered, and it says why."""
    if has_gpu(machine()):
        return {"info": field.description}
    if knob == "device":
        return {"info": f"{field.description} cuda is not offered: {NO_GPU}", "without": ("cuda",)}
    needs = isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("gpu")
    return {"info": f"Not here: {NO_GPU}", "interactive": False} if needs else {"info": field.description}


def _board(first: str) -> gr.HTML:
    """Its value is a view as JSON, drawn by static/lab.js."""
    return gr.HTML(first, html_template='<section class="lab" aria-label="The lab"></section>', js_on_load=ON_LOAD,
                   apply_default_css=False, elem_id="lab")  # fmt: skip


def _empty(chosen: Lab) -> Values:
    return Points(chosen, chosen.grid(machine()), machine()).result()


def refused(refusal: Refusal) -> str:
    return _json(id=uuid.uuid4().hex, state="refused", title=str(refusal), more=[])


def _figure(point: Values, shape: Values) -> Values:
    """One point in words, for those that have no cell of their own in the picture."""
    values = {axis["title"]: [point[axis["key"]], axis["unit"]] for axis in shape["shown"] if axis["key"] in point}
    place = {axis["title"]: point[axis["key"]] for axis in (shape["across"], shape["along"]) if axis["key"] in point}
    return {"kind": point.get("kind", ""), "place": place, "values": values, "bytes": point.get("bytes")}


def _json(**values: Any) -> str:
    return json.dumps(values).replace("<", "\\u003c")


def _buttons(running: bool) -> tuple:
    return gr.update(interactive=not running), gr.update(interactive=running)


def rules() -> str:
    """Only the knobs of the chosen lab are shown."""
    shown = ", ".join(
        f'#lab-rail:has(#lab-choice input[value="{number}"]:checked) .lab-{number}' for number in range(len(labs()))
    )
    return f"{shown} {{ display: flex !important; }}"
