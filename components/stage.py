"""The stage: one live component for text, figures, charts and verdict, drawn by static/stage.js.

It reads logs from an address of its own. As a value that grows every 0.2 s they cost the browser 0.41 of a core, most
of it spent by Gradio's page on bringing four hundred widgets up to date with every message; so they cost 0.14.
"""

import gradio as gr

ON_LOAD = """
const base = window.gradio_config.root + "/pitlane/";
const events = ["replay", "reuse", "attempt", "ended"];
import(base + "stage.js").then((stage) => stage.mount({ element, props, watch, trigger, base }));
"""


def stage(setup: str) -> gr.HTML:
    """Its value is which run's log it reads; `setup` says the lanes while nothing runs."""
    return gr.HTML(
        "",
        html_template='<section class="stage" data-state="idle" aria-label="The race"></section>',
        js_on_load=ON_LOAD,
        apply_default_css=False,
        elem_id="stage",
        setup=setup,
    )
