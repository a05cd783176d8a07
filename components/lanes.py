"""Lane editors: controls derived from the registry, and the way from widgets to a Lane and back."""

import os
import string
from html import escape
from typing import Any, Literal, get_args, get_origin

import gradio as gr
from gradio.components import Component

from components.controls import OFF, control, value
from engine.measure.machine import machine
from engine.part import Part
from engine.refusal import Refusal
from engine.registry import ALSO, GROUPS, backends, optimizations
from engine.spec import MAX_LANES, Experiment, Lane

LETTERS = string.ascii_uppercase
Values = dict[str, Any]
"""What the widgets of one lane hold, by address."""


def named(part: type[Part]) -> str | None:
    """The knob that doubles as the switch: a first knob with named choices, of a part that can be off."""
    first = next(iter(part.model_fields.items()), None)
    choice = first and get_origin(first[1].annotation) is Literal
    return first[0] if choice and not part.always else None


def addresses() -> list[str]:
    """Every value of a lane in the order of its widgets, in the one grammar of addresses."""
    found = ["backend", "device"]
    for name, part in backends().items():
        found += [f"backend.{name}.{knob}" for knob in part.model_fields]
    for name, part in optimizations().items():
        found += [] if part.always or named(part) else [f"opts.{name}"]
        found += [f"opts.{name}.{knob}" for knob in part.model_fields]
    return found


def lane(values: Values) -> Lane:
    """The lane that the widgets say. Raises Refusal with one sentence."""
    name = values["backend"]
    backend = {"name": name, **_knobs(f"backend.{name}", backends()[name], values)}
    opts = {key: _knobs(f"opts.{key}", part, values) for key, part in optimizations().items() if _on(key, part, values)}
    data = {"backend": backend, "device": values["device"], "opts": opts}
    return Experiment.read({"workload": {"prompts": "-"}, "lanes": {"lane": data}}).lanes["lane"]


def show(shown: Lane) -> Values:
    """What the widgets must hold to say this lane: the inverse of `lane`."""
    values: Values = {"backend": shown.backend.name(), "device": shown.device}
    for name, part in backends().items():
        own = shown.backend if shown.backend.name() == name else part()
        values |= {f"backend.{name}.{knob}": setting for knob, setting in own.knobs().items()}
    for name, part in optimizations().items():
        values |= _shown(name, part, shown.opts.get(name))
    return values


def _shown(name: str, part: type[Part], opt: Part | None) -> Values:
    values = {f"opts.{name}.{knob}": setting for knob, setting in (opt or part()).knobs().items()}
    if named(part):
        return values if opt else values | {f"opts.{name}.{named(part)}": OFF}
    return values if part.always else {f"opts.{name}": opt is not None, **values}


def _on(name: str, part: type[Part], values: Values) -> bool:
    if part.always:
        return True
    return values[f"opts.{name}.{named(part)}"] != OFF if named(part) else bool(values[f"opts.{name}"])


def _knobs(address: str, part: type[Part], values: Values) -> Values:
    """What the widgets say; a knob that does not apply to what is chosen, and so is greyed, keeps its default."""
    first = values.get(f"{address}.{next(iter(part.model_fields), None)}")
    fields = {knob: field for knob, field in part.model_fields.items() if first in part.only.get(knob, (first,))}
    return {knob: value(field, values[f"{address}.{knob}"]) for knob, field in fields.items()}


def badges(shown: Lane) -> list[str]:
    """What makes this lane different from a default one, in a few words each."""
    return [opt.badge() for opt in shown.opts.values()]


def offered(chosen: str | None = None) -> list[tuple[str, str]]:
    """The backends to choose from; the simulated one only on demand, or where it is chosen already."""
    demand = os.environ.get("PITLANE_SIMULATED") == "1" or chosen == "simulated"
    shown = {name: part for name, part in backends().items() if part.needs_model or demand}
    order = sorted(shown, key=lambda name: name != "transformers")
    return [(shown[name].title, name) for name in order]


def devices(chosen: str) -> list[str]:
    """The devices to choose from: a GPU only where there is one, or where it is chosen already."""
    every = get_args(Lane.model_fields["device"].annotation)
    return [name for name in every if name != "cuda" or machine().gpus or chosen == "cuda"]


def editor(start: Lane) -> dict[str, Component]:
    """Build the widgets of one lane inside the current block, keyed by address."""
    values, made = show(start), {}
    with gr.Group(elem_classes=["opt", "opt-backend"]):
        classes = ["row", "choice"]
        shown = {"value": values["backend"], "label": "Engine", "elem_classes": classes}
        made["backend"] = gr.Radio(offered(values["backend"]), **shown)
        for name, part in backends().items():
            made |= _fields(f"backend.{name}", part, values, f"of-{name}")
        chosen = values["device"]
        made["device"] = gr.Radio(devices(chosen), value=chosen, label="Device", elem_classes=classes)
    for group in GROUPS:
        made |= _family(group, values)
    return {address: made[address] for address in addresses()}


def _family(group: str, values: Values) -> dict[str, Component]:
    """A group of optimizations that folds; what is on stays in sight (page.css), so that a lane explains itself."""
    parts = {name: part for name, part in optimizations().items() if part.group == group}
    more = sum(not part.always for part in parts.values())
    made: dict[str, Component] = {}
    with gr.Group(elem_classes=["family", f"family-{group.replace(' ', '-')}"]):
        count = f"<small>{more} {'switches' if more > 1 else 'switch'}</small>" if more else ""
        fold = f'<label><input type="checkbox" class="fold" /><span>{escape(group)}</span>{count}</label>'
        title = f'<h4 role="heading" aria-level="2">{fold}</h4>'
        title += f"<p class='also'>= {ALSO[group]}</p>" if group in ALSO else ""
        gr.HTML(title, elem_classes=["group-title", "" if more else "whole"])
        for name, part in parts.items():
            made |= _optimization(name, part, values)
    return made


def _optimization(name: str, part: type[Part], values: Values) -> dict[str, Component]:
    """One optimization: its switch or first choice, then the knobs that appear while it is on."""
    closed = part.unavailable(machine())
    first = named(part) or (next(iter(part.model_fields)) if part.always else None)
    kind = "steady" if part.always else "named" if first else "plain"
    shown = {"label": part.title, "interactive": not closed}
    with gr.Group(elem_classes=["opt", f"opt-{name}", kind, "closed" if closed else "open"]):
        if first:
            address = f"opts.{name}.{first}"
            shown |= {"value": values[address], "elem_classes": ["row", "choice"]}
            made = {address: control(first, part.model_fields[first], switch=not part.always, **shown)}
        else:
            made = {f"opts.{name}": gr.Checkbox(values[f"opts.{name}"], elem_classes=["row", "switch"], **shown)}
        if closed:
            gr.HTML(f"<p>{escape(closed)}</p>", elem_classes=["why"])
        return made | _fields(f"opts.{name}", part, values, "of-on", skip=first)


def _fields(address: str, part: type[Part], values: Values, when: str, skip: str | None = None) -> dict[str, Component]:
    return {
        f"{address}.{knob}": control(
            knob,
            field,
            value=values[f"{address}.{knob}"],
            info=None,
            elem_classes=["row", "knob", f"knob-{knob}", when],
        )
        for knob, field in part.model_fields.items()
        if knob != skip
    }


def updates(values: Values) -> list[Any]:
    """What to send to the widgets of `editor`; what is closed here may only be switched off."""
    changes = {address: {"value": values[address]} for address in addresses()}
    changes["backend"]["choices"] = offered(values["backend"])
    changes["device"]["choices"] = devices(values["device"])
    for name, part in optimizations().items():
        if not part.always and part.unavailable(machine()):
            switch = f"opts.{name}.{named(part)}" if named(part) else f"opts.{name}"
            changes[switch]["interactive"] = _on(name, part, values)
    return [gr.update(**changes[address]) for address in addresses()]


def rules() -> str:
    """The style rules that follow from the registry: a backend's knobs are seen while it is chosen, and a knob that
    belongs to some choices is greyed with the others.
    """
    seen = [
        f'#rail .opt-backend:not(:has(input[value="{name}"]:checked)) .of-{name} {{ display: none; }}'
        for name, part in backends().items()
        if part.model_fields
    ]
    greyed = [_greyed(name, part, knob) for name, part in optimizations().items() for knob in part.only]
    return "".join([*seen, *greyed])


def _greyed(name: str, part: type[Part], knob: str) -> str:
    choices = part.only[knob]
    chosen = ", ".join(f'.choice input[value="{choice}"]:checked' for choice in choices)
    row = f"#rail .opt-{name}:not(:has({chosen})) .knob-{knob}"
    grey = f"{row} > * {{ opacity: 0.45; }} {row} {{ pointer-events: none; }}"
    return f'{grey} {row}::after {{ content: "{" and ".join(choices)} only"; }}'


class Lanes:
    """Up to four lane editors with their tabs; the tab alone decides, in the browser, which is seen."""

    def __init__(self, start: dict[str, Lane]):
        names = [*start, *LETTERS[len(start) :]][:MAX_LANES]
        tabs = [(name, str(number)) for number, name in enumerate(start)]
        with gr.Row(elem_id="lane-bar"):
            self.tab = gr.Radio(tabs, value=tabs[-1][1], label="Lanes", elem_classes=["lane-tabs"])
            self.add = gr.Button("Add", elem_classes=["quiet"], elem_id="lane-add")
            self.copy = gr.Button("Copy", elem_classes=["quiet"], elem_id="lane-copy")
            self.clear = gr.Button("Clear", elem_classes=["quiet"], elem_id="lane-clear")
            self.remove = gr.Button("Remove", elem_classes=["quiet"], elem_id="lane-remove")
        self.count = gr.Number(len(start), visible="hidden", label="Lanes in use")
        self.names, self.notes, self.editors = [], [], []
        for number, name in enumerate(names):
            with gr.Column(elem_classes=["lane-editor", f"lane-{number}"]):
                self.notes.append(gr.HTML("", elem_classes=["lane-note"]))
                self.editors.append(editor(start.get(name, Lane())))
                self.names.append(gr.Textbox(name, label="Name", max_length=24, elem_classes=["row", "text"]))

    @property
    def inputs(self) -> list[Component]:
        """What `read` reads, in order."""
        widgets = [widget for made in self.editors for widget in made.values()]
        return [self.count, *self.names, *widgets]

    @property
    def outputs(self) -> list[Component]:
        """What `write` writes, in order."""
        return [self.tab, *self.inputs]

    def edits(self) -> list[Any]:
        """The events by which a person changes a lane."""
        widgets = [widget for made in self.editors for widget in made.values()]
        return [widget.input for widget in [*self.names, *widgets]]

    def read(self, flat: list[Any]) -> list[Values]:
        """The values of the lanes in use, as they stand, with their names under `name`."""
        keys = addresses()
        names, widgets = flat[1 : 1 + MAX_LANES], flat[1 + MAX_LANES :]
        rows = [widgets[n * len(keys) : (n + 1) * len(keys)] for n in range(MAX_LANES)]
        every = [{"name": name, **dict(zip(keys, row, strict=True))} for name, row in zip(names, rows, strict=True)]
        return every[: int(flat[0])]

    def write(self, lanes: list[Values], tab: int) -> list[Any]:
        """The updates that show these lanes and select one of them; the inverse of `read`."""
        tabs = [(values["name"], str(number)) for number, values in enumerate(lanes)]
        filled = lanes + [{"name": LETTERS[n], **show(Lane())} for n in range(len(lanes), MAX_LANES)]
        widgets = [update for values in filled for update in updates(values)]
        names = [values["name"] for values in filled]
        return [gr.update(choices=tabs, value=str(tab)), len(lanes), *names, *widgets]


def collected(rows: list[Values]) -> dict[str, Lane]:
    """Lanes by name. Raises Refusal for two of one name, and for what a lane cannot hold."""
    names = [str(values["name"]).strip() for values in rows]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise Refusal(f"Two lanes are called {twice}.", "Give one of them another name.")
    return {name: lane(values) for name, values in zip(names, rows, strict=True)}


def spread(lanes: dict[str, Lane]) -> list[Values]:
    """The inverse of `collected`."""
    return [{"name": name, **show(shown)} for name, shown in lanes.items()]


def grown(rows: list[Values], tab: int) -> tuple[list[Values], int, str]:
    """One default lane more: the rows, the tab to show, and what to say."""
    return _joined(rows, show(Lane()))


def copied(rows: list[Values], tab: int) -> tuple[list[Values], int, str]:
    """One more like the shown one."""
    return _joined(rows, rows[tab])


def cleared(rows: list[Values], tab: int) -> tuple[list[Values], int, str]:
    """The shown one with nothing switched on."""
    plain = {**show(Lane()), "name": rows[tab]["name"]}
    return [*rows[:tab], plain, *rows[tab + 1 :]], tab, ""


def shrunk(rows: list[Values], tab: int) -> tuple[list[Values], int, str]:
    """One fewer: the shown one goes."""
    if len(rows) == 1:
        return rows, 0, "One lane has to stay."
    return rows[:tab] + rows[tab + 1 :], min(tab, len(rows) - 2), ""


def _joined(rows: list[Values], values: Values) -> tuple[list[Values], int, str]:
    if len(rows) == MAX_LANES:
        return rows, MAX_LANES - 1, f"{MAX_LANES} lanes are the most that can be compared at once."
    used = {row["name"] for row in rows}
    name = next(letter for letter in LETTERS if letter not in used)
    return [*rows, {**values, "name": name}], len(rows), ""
