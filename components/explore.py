"""Explore: sweeps, ablations and searches of the lane that is set up above, which go on without the page."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import gradio as gr
from gradio.components import Component

from engine.commands import OWNER
from engine.measure.ablation import MOST as MOST_TOGGLES
from engine.measure.pareto import AXES
from engine.refusal import Refusal
from engine.run.ablate import PASSES, Ablation
from engine.run.kinds import KINDS
from engine.run.marks import SPEED
from engine.run.search import BUDGET, Limit, Search
from engine.run.search_space import variables
from engine.run.studies import Studies
from engine.run.study import Study, raced
from engine.run.sweep import Axis, Sweep
from engine.spec import MAX_LANES, Experiment

ON_LOAD = """
const base = window.gradio_config.root + "/pitlane/";
const events = ["point", "race", "heal"];
import(base + "explore.js").then((explore) => explore.mount({ element, props, watch, trigger, base }));
"""
LOOK_S = 0.4
BEAT = 5
"""After so many looks without news the browser is told that the study still runs."""
ROUNDS = 2
COLUMNS = (SPEED, "ttft_ms", "tpot_ms", "peak", "kl")
WIDE = ("ttft_ms", "tpot_ms")
"""Left out on a phone."""
VARIED, ELSE = "varied", "peak"
"""Across stands what a sweep varies; in a search, where that is many things, the memory."""
FIRST = "lane.opts.prompt_lookup.guesses"
NOTHING = "nothing else"
LISTED = "With commas between them, or 1..8."
IDLE = {
    "sweep": "Press Explore to measure every combination of the values, one run after another.",
    "ablation": "Press Explore to find out what each optimization of the lane contributes.",
    "search": "Press Explore to look for the fastest configuration within the limits.",
}
AHEAD = {
    "sweep": "Every combination becomes a point in a chart of speed, latency and memory. Click one to open its setup "
    "in the Race, or choose two and let them race each other.",
    "ablation": "Each one is measured alone and on top of the others, so that its own share shows, with an interval.",
    "search": "Setups that cannot work cost no run. Every run says where to look next, and the best within your limits "
    "stand out.",
}
"""What is going to be seen."""
LESSON = (
    "<h2>Explore</h2><p>Many runs of the lane that is open in the Race. They take their turn between other people's "
    "runs, go on when you leave the page, and are kept.</p>"
)
ABLATION = (
    f"<p>Switches the lane's optimizations (up to {MOST_TOGGLES}) on alone, all together, and all but one; up to three "
    "in every combination.</p>"
)
SEARCH = "<p>Tries what can be switched in the lane. Combinations that cannot work cost no run.</p>"
Picture = Callable[..., dict[str, Any] | None]


class Explore:
    """The widgets and what they do.

    `jobs` runs the points. `pictures` are functions that make figures: pareto(marks, x, y, size), waterfall(effects,
    title), heatmap(marks, addresses, axis). `read(form)` gives the experiment that the page's form says,
    `fill(experiment)` the updates that show one.
    """

    def __init__(self, jobs: Any, pictures: Mapping[str, Picture], read: Callable, fill: Callable):
        self.studies, self.pictures = Studies(jobs, KINDS), pictures
        self.read, self.fill = read, fill
        self.studies.resume_all(but=OWNER)
        self.variables = variables()

    def build(self) -> None:
        with gr.Row(elem_id="explore"):
            with gr.Column(elem_id="explore-rail"):
                gr.HTML(LESSON)
                kinds = [("Sweep", "sweep"), ("Ablate", "ablation"), ("Search", "search")]
                self.kind = gr.Radio(kinds, value="sweep", show_label=False, label="What to do", elem_id="explore-kind")
                self.inputs = {**self._sweep(), **self._ablation(), **self._search()}
                with gr.Row(elem_id="explore-go"):
                    self.run = gr.Button("Explore", variant="primary", elem_id="explore-run")
                    self.stop = gr.Button("Stop", elem_id="explore-stop", interactive=False)
            with gr.Column(elem_id="explore-track"):
                self.axes = self._axes()
                self.board = gr.HTML(
                    _idle("sweep"), html_template='<section class="explore" aria-label="Explore"></section>',
                    js_on_load=ON_LOAD, apply_default_css=False, elem_id="explore-board",
                )  # fmt: skip

    def _sweep(self) -> dict[str, Component]:
        choices = [(title, address) for address, (title, _) in self.variables.items()]
        first, (_, text) = FIRST, self.variables[FIRST]
        with gr.Column(elem_classes=["explore-form", "of-sweep"]):
            return {
                "first": gr.Dropdown(choices, value=first, label="Vary", elem_id="explore-first"),
                "values": gr.Textbox(text, label="Values", info=LISTED, elem_id="explore-values"),
                "second": gr.Dropdown([(NOTHING, ""), *choices], value="", label="And", elem_id="explore-second"),
                "others": gr.Textbox("", label="Its values", visible=False, elem_id="explore-others"),
            }  # fmt: skip

    def _ablation(self) -> dict[str, Component]:
        with gr.Column(elem_classes=["explore-form", "of-ablation"]):
            gr.HTML(ABLATION)
            choices = [("2 · quick look", 2), (f"{PASSES} · with intervals", PASSES)]
            return {"passes": gr.Radio(choices, value=PASSES, label="Passes", elem_id="explore-passes")}

    def _search(self) -> dict[str, Component]:
        with gr.Column(elem_classes=["explore-form", "of-search"]):
            gr.HTML(SEARCH)
            info = "kl in nats, peak in MB or GB, ttft and tpot in ms or s."
            return {
                "limits": gr.Textbox("kl<=0.02, peak<=1.2GB", label="Limits", info=info, elem_id="explore-limits"),
                "budget": gr.Slider(8, 64, BUDGET, step=1, label="Runs at most", buttons=[], elem_id="explore-budget"),
            }

    def _axes(self) -> list[Component]:
        choices = [(axis.title, name) for name, axis in AXES.items()]
        with gr.Row(elem_id="explore-axes"):
            across = gr.Dropdown([("What is varied", VARIED), *choices], value=VARIED, label="Across")
            others = (("Up", SPEED), ("Size", "ttft_ms"))
            return [across, *(gr.Dropdown(choices, value=name, label=label) for label, name in others)]

    def wire(
        self, owner: gr.BrowserState, tab: Component, form: list[Component], filled: list[Component], ready: Any
    ) -> None:
        """`tab` says which lane is open, `form` is what `read` reads, `filled` what `fill` updates.

        After the event `ready` the owner is known.
        """
        quiet = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
        shown, axes = [self.board, self.run, self.stop], self.axes
        asked = [owner, tab, self.kind, *self.inputs.values(), *axes, *form]
        ready.then(self.attach, [owner, *axes], shown, **quiet)
        self.run.click(self.start, asked, shown, trigger_mode="once", **quiet)
        self.stop.click(self.halt, [owner], None, **quiet)
        self.board.heal(self.attach, [owner, *axes], shown, **quiet)
        self.board.point(self.open, [owner], filled, **quiet)
        self.board.race(self.race, [owner], filled, **quiet)
        gr.on(
            [one.change for one in axes], self.redraw, [owner, *axes], [self.board], trigger_mode="always_last", **quiet
        )
        for chosen, values in (("first", "values"), ("second", "others")):
            self.inputs[chosen].change(self.begin, [self.inputs[chosen]], [self.inputs[values]], **quiet)
        self.kind.change(self.choose, [owner, self.kind], [self.board], **quiet)

    def begin(self, address: str) -> dict[str, Any]:
        """Values to begin with for an address; without one there is nothing to say."""
        return gr.update(value=self.variables[address][1] if address else "", visible=bool(address))

    def choose(self, owner: str, kind: str) -> Any:
        """Another kind of study: an empty board says what it will do; one with points stays."""
        return gr.skip() if self._latest(owner) else _idle(kind)

    def study(self, kind: str, inputs: dict[str, Any], experiment: Experiment) -> Study:
        """The study that the form says, of an experiment with one lane. Raises Refusal."""
        if kind == "ablation":
            return Ablation(experiment, passes=inputs["passes"])
        if kind == "search":
            limits = [Limit.read(text) for text in str(inputs["limits"] or "").split(",") if text.strip()]
            return Search(experiment, limits, budget=int(inputs["budget"]))
        pairs = [("first", "values"), ("second", "others")]
        return Sweep(experiment, [Axis.read(f"{inputs[a]}={inputs[v]}") for a, v in pairs if inputs[a]]).possible_here()

    async def start(self, owner: str, tab: str, kind: str, *rest: Any) -> AsyncIterator[tuple]:
        """Explore pressed: start a study, or go on watching the one that runs."""
        inputs = dict(zip(self.inputs, rest, strict=False))
        axes, form = rest[len(inputs) : len(inputs) + 3], rest[len(inputs) + 3 :]
        id = self.studies.current(owner)
        try:
            id = id or self.studies.start(self.study(kind, inputs, self._lane(form, tab)), owner)
        except Refusal as refusal:
            yield _json(state="refused", title=str(refusal), more=[]), *_buttons(False)
            return
        async for shown in self._follow(id, axes):
            yield shown

    def _lane(self, form: tuple[Any, ...], tab: str) -> Experiment:
        """The race that is set up, with only the lane that is open and few rounds."""
        made = self.read(form)
        name = list(made.lanes)[int(tab)]
        return made.model_copy(update={"lanes": {name: made.lanes[name]}, "rounds": ROUNDS, "expect": None})

    async def attach(self, owner: str, *axes: str) -> AsyncIterator[tuple]:
        """Page opened or connection healed: the study that runs, or the last one that ended."""
        id = self._latest(owner)
        if not id:
            yield gr.skip(), gr.skip(), gr.skip()
            return
        async for shown in self._follow(id, axes):
            yield shown

    async def _follow(self, id: str, axes: tuple[str, ...]) -> AsyncIterator[tuple]:
        known, looks, text = None, 0, ""
        while True:
            try:
                progress = self.studies.progress(id)
            except Refusal as refusal:
                yield _json(state="refused", title=str(refusal), more=[]), *_buttons(False)
                return
            running = progress[0] == "running"
            if progress != known:
                text = await asyncio.to_thread(self.view, id, *axes)
            if progress != known or looks % BEAT == 0:
                yield text, *_buttons(running)
            if not running:
                return
            known, looks = progress, looks + 1
            await asyncio.sleep(LOOK_S)

    def redraw(self, owner: str, *axes: str) -> Any:
        id = self._latest(owner)
        return self.view(id, *axes) if id else gr.skip()

    def open(self, owner: str, event: gr.EventData) -> list[Any]:
        """Put a point's configuration into the form."""
        id, number = self._latest(owner), event.number
        if id is None or not isinstance(number, int):
            raise gr.Error("There is no such point.", print_exception=False)
        return self.fill(self.studies.point(id, number).experiment)

    def race(self, owner: str, event: gr.EventData) -> list[Any]:
        """Put two points into the form, as the lanes of a race."""
        id = self._latest(owner)
        try:
            return self.fill(raced([self.studies.point(id or "", int(number)) for number in event.numbers[:MAX_LANES]]))
        except Refusal as refusal:
            raise gr.Error(str(refusal), print_exception=False) from None

    def halt(self, owner: str) -> None:
        if id := self.studies.current(owner):
            self.studies.cancel(id, owner)

    def _latest(self, owner: str) -> str | None:
        found = self.studies.table.listing(owner, 1)
        return self.studies.current(owner) or (found[0]["id"] if found else None)

    def view(self, id: str, x: str, y: str, size: str) -> str:
        """What the board draws, as JSON. A study that cannot be read is its sentence."""
        try:
            found = self.studies.view(id)
        except Refusal as refusal:
            return _json(state="refused", title=str(refusal), more=[])
        if found["kind"] == "ablation":
            drawn = [self.pictures["waterfall"](found["effects"], found["axis"]["title"])]
        else:
            across = found.get("axes", [ELSE])[0] if x == VARIED else x
            drawn = [self.pictures["pareto"](found["marks"], across, y, size)] if found["marks"] else []
            drawn.append(self.pictures["heatmap"](found["marks"], found.get("axes", []), y))
        going = found["state"] == "running"
        now = f"Measured {found['ended']} of {found['total']}. Now: {', '.join(found['now']) or 'waiting'}."
        title, more = (now, [found["sentence"]] if found["ended"] else []) if going else (found["sentence"], [])
        return _json(
            state=found["state"], title=title, more=[found["title"], found["why"], *more], total=found["total"],
            ended=found["ended"], figures=[one for one in drawn if one], columns=_columns(), rows=_rows(found),
        )  # fmt: skip


def _columns() -> list[dict[str, Any]]:
    axes = [AXES[name] for name in COLUMNS]
    return [
        {"title": one.title, "unit": one.unit, "definition": one.definition, "wide": one.name in WIDE} for one in axes
    ]


def _rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The marks as rows, the fastest first; what a search was refused for nothing is left out."""
    marks = [mark for mark in found["marks"] if found["kind"] != "search" or mark["state"] != "refused"]
    order = sorted(marks, key=lambda mark: -(mark["figures"].get(SPEED) or 0.0))
    return [{**{key: mark[key] for key in ("number", "label", "front", "why", "stated")},
             "values": [mark["figures"].get(name) for name in COLUMNS]} for mark in order]  # fmt: skip


def _idle(kind: str) -> str:
    return _json(state="idle", title=IDLE[kind], more=[AHEAD[kind]], total=0, ended=0, figures=[], columns=[], rows=[])


def _json(**values: Any) -> str:
    return json.dumps(values).replace("<", "\\u003c")


def _buttons(running: bool) -> tuple:
    return gr.update(interactive=not running), gr.update(interactive=running)
