"""The room of a workshop: who is here, the open lesson, everybody's guesses and the shared run."""

import json
from collections.abc import Mapping
from typing import Any

import gradio as gr

ON_LOAD = """
const base = window.gradio_config.root + "/pitlane/";
const events = ["reuse", "attempt", "further"];
import(base + "workshop.js").then((workshop) => workshop.mount({ element, props, trigger, base }));
"""


def room(lessons: Mapping[str, Any]) -> gr.HTML:
    """Drawn by static/workshop.js, which reads the room's state from an address of its own."""
    return gr.HTML(
        "",
        html_template='<section class="workshop" aria-label="Workshop"></section>',
        js_on_load=ON_LOAD,
        apply_default_css=False,
        elem_id="workshop",
        lessons=json.dumps({name: one.shown() for name, one in lessons.items()}),
    )
