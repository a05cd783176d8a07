"""The only map from a knob's type to its widget, and back from a widget's value to the knob's."""

from typing import Any, Literal, get_args, get_origin

import gradio as gr
from gradio.components import Component
from pydantic.fields import FieldInfo

OFF = "off"
SLIDER_SPAN = 64


def control(
    name: str, field: FieldInfo, switch: bool = False, without: tuple[str, ...] = (), **settings: Any
) -> Component:
    """The widget for one knob: label, bounds and default come from the field.

    A knob with named choices may double as its part's `switch`: it then has "off" as its first choice. Choices
    `without` are not offered.
    """
    common = {"label": field.title or name, "value": field.default, "interactive": True, **settings}
    kind, (low, high) = field.annotation, bounds(field)
    if get_origin(kind) is Literal:
        return gr.Radio([OFF] * switch + [one for one in get_args(kind) if one not in without], **common)
    if kind is bool:
        return gr.Checkbox(**common)
    if kind is int and None not in (low, high) and high - low <= SLIDER_SPAN:
        return gr.Slider(low, high, step=1, buttons=[], **common)
    if kind in (int, float):
        return gr.Number(step=1 if kind is int else None, **common)  # the spec says what is wrong, in a sentence
    return gr.Textbox(**common)


def bounds(field: FieldInfo) -> tuple[Any, Any]:
    """The field's lowest and highest value; None where it has none."""
    found = {key: getattr(m, key) for m in field.metadata for key in ("ge", "le") if hasattr(m, key)}
    return found.get("ge"), found.get("le")


def value(field: FieldInfo, shown: Any) -> Any:
    """What a widget holds, as the knob's type: browsers know one kind of number."""
    if field.annotation is int and isinstance(shown, float) and shown.is_integer():
        return int(shown)
    if field.annotation is float and isinstance(shown, int) and not isinstance(shown, bool):
        return float(shown)
    return shown
