"""The stage: one live component for text, figures, charts and verdict, drawn by static/stage.js."""

import gradio as gr

ON_LOAD = """
const base = window.gradio_config.root + "/pitlane/";
const events = ["replay", "reuse", "attempt", "heal"];
import(base + "stage.js").then((stage) => stage.mount({ element, props, watch, trigger, base }));
"""


def stage(setup: str) -> gr.HTML:
    """Its value is an append-only log of view lines; `setup` says the lanes while nothing runs."""
    return gr.HTML(
        "",
        html_template='<section class="stage" data-state="idle" aria-label="The race"></section>',
        js_on_load=ON_LOAD,
        apply_default_css=False,
        elem_id="stage",
        setup=setup,
    )
