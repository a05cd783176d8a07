"""The list of a visitor's own runs: click one and it replays."""

import json
from typing import Any

import gradio as gr

ON_LOAD = """
const base = window.gradio_config.root + "/pitlane/";
const events = ["pick"];
import(base + "history.js").then((list) => list.mount({ element, props, watch, trigger }));
"""
SHOWN = ("id", "created", "title", "state", "model", "lanes", "simulated", "sentence")


def history() -> gr.HTML:
    """Its value is `listed(...)`: JSON, drawn as text by static/history.js."""
    return gr.HTML(
        "[]",
        html_template='<section class="history" aria-label="My runs"></section>',
        js_on_load=ON_LOAD,
        apply_default_css=False,
        elem_id="history",
    )


def listed(runs: list[dict[str, Any]]) -> str:
    """The rows of the list as a JSON string."""
    return json.dumps([{key: run.get(key) for key in SHOWN} for run in runs]).replace("<", "\\u003c")
