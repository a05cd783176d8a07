"""The field guide: each optimization's lesson, once, from its class docstring."""

from html import escape

import gradio as gr

from engine.measure.machine import machine
from engine.part import Part
from engine.registry import ALSO, GROUPS, backends, optimizations

ON_LOAD = """
const base = window.gradio_config.root + "/pitlane/";
import(base + "guide.js").then((guide) => guide.mount({ element }));
"""


def lessons() -> gr.HTML:
    """All lessons, grouped, folded to their titles; static/guide.js opens each beside its switch as well."""
    parts = list(optimizations().items())
    grouped = [(group, [item for item in parts if item[1].group == group]) for group in GROUPS]
    real = [(name, part) for name, part in backends().items() if part.needs_model]
    body = "".join(_group(title, members) for title, members in [*grouped, ("engines", real)] if members)
    body = f'<h2>Field guide</h2><div class="groups">{body}</div>'
    return gr.HTML(
        f'<section class="guide" aria-label="Field guide">{body}</section>',
        elem_id="guide",
        js_on_load=ON_LOAD,
        apply_default_css=False,
    )


def _group(title: str, members: list[tuple[str, type[Part]]]) -> str:
    told = "".join(_lesson(*member) for member in members)
    also = f" <small>= {ALSO[title]}</small>" if title in ALSO else ""
    return f"<div class='{title.replace(' ', '-')}'><h3>{escape(title)}{also}</h3>{told}</div>"


def _lesson(name: str, part: type[Part]) -> str:
    paragraphs = "".join(f"<p>{escape(text)}</p>" for text in part.lesson().split("\n\n"))
    knobs = "".join(
        f"<dt>{escape(field.title or knob)}</dt><dd>{escape(field.description or '')}</dd>"
        for knob, field in part.model_fields.items()
    )
    words = {True: "The text stays the same.", False: "The text may change."}
    fate = getattr(part, "kept", "") or words.get(getattr(part, "lossless", None), "")
    here = part.advice(machine())
    paragraphs += f"<p class='here'><b>On this machine:</b> {escape(here)}</p>" if here else ""
    tail = f"<dl>{knobs}</dl>" if knobs else ""
    return (
        f'<details id="lesson-{escape(name)}"><summary>{escape(part.title)}</summary>'
        f"{paragraphs}{tail}<p class='fate'>{fate}</p></details>"
    )
