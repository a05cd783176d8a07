"""The path of lessons: a list with the reader's progress, one lesson open at a time, drawn by static/path.js."""

import json
from collections.abc import Mapping
from typing import Any

import gradio as gr

ON_LOAD = """
const base = window.gradio_config.root + "/pitlane/";
const events = ["begin", "halt", "further", "reuse", "attempt", "ended"];
import(base + "path.js").then((path) => path.mount({ element, props, watch, trigger, base }));
"""


def path(lessons: Mapping[str, Any]) -> gr.HTML:
    """Its value says which lesson's run began, or why none did; `lessons` are shown as their `shown()` says."""
    return gr.HTML(
        "",
        html_template='<section class="path" aria-label="Lessons"></section>',
        js_on_load=ON_LOAD,
        apply_default_css=False,
        elem_id="path",
        lessons=json.dumps({name: one.shown() for name, one in lessons.items()}),
    )
