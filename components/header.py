"""The header: the name, what this machine is, and the switch between light and dark."""

from html import escape

import gradio as gr

from engine.measure.machine import machine

DRAWING = '<svg class="{}" viewBox="{}" aria-hidden="true">{}</svg>'
MARK = DRAWING.format("mark", "0 0 32 32", '<path d="M5 24 15 8M12.5 24l10-16M20 24 30 8"/>')
HALF = DRAWING.format("half", "0 0 24 24", '<circle cx="12" cy="12" r="8"/><path d="M12 4a8 8 0 0 1 0 16z"/>')
ON_LOAD = """
const dark = (on) => document.body.classList.toggle("dark", on);
const kept = localStorage.getItem("pitlane-theme");
if (kept && !new URLSearchParams(location.search).get("__theme")) dark(kept === "dark");
element.querySelector("button").addEventListener("click", () => {
  const on = !document.body.classList.contains("dark");
  dark(on);
  localStorage.setItem("pitlane-theme", on ? "dark" : "light");
});
"""


def header() -> gr.HTML:
    """Static, but for the switch, whose choice the browser keeps."""
    place = escape(machine().summary())
    return gr.HTML(
        f'<header class="top">{MARK}<h1>Pitlane</h1><p>Switch an optimization on, watch what it buys.</p>'
        f'<span class="machine" title="This machine">{place}</span>'
        f'<button type="button" aria-label="Light or dark" title="Light or dark">{HALF}</button></header>',
        elem_id="top",
        js_on_load=ON_LOAD,
        apply_default_css=False,
    )
