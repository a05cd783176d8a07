"""The header: the name, the way to the rooms, what this machine is, and the switch between light and dark."""

from collections.abc import Mapping
from html import escape

import gradio as gr

from engine.measure.machine import machine
from engine.public import public, sentence

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
const rooms = [...element.querySelectorAll("nav a")];
const enter = () => {
  const query = new URLSearchParams(location.search);
  const plain = !query.has("run") && !query.has("lanes");
  const asked = rooms.find((room) => room.hash === (location.hash || (plain ? "#workshop" : ""))); // where there is one
  if (!asked && document.body.dataset.room && location.hash) return; // a place within the room
  document.body.dataset.room = (asked ?? rooms[0]).hash.slice(1);
  for (const room of rooms) room.ariaCurrent = room.hash.slice(1) === document.body.dataset.room ? "page" : null;
  window.scrollTo(0, 0);
  window.dispatchEvent(new Event("resize"));
};
const step = (event) => { // by itself a link like #race leaves an address with a query, and loads the page anew
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  location.hash = event.currentTarget.hash;
};
for (const room of rooms) room.addEventListener("click", step);
element.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  const inside = document.querySelector(`.room-${document.body.dataset.room}`);
  const first = inside.querySelector("button:not([disabled]), input, select");
  (inside.querySelector("#run:not([disabled])") ?? first).focus();
});
window.addEventListener("hashchange", enter);
enter();
"""


def room(name: str) -> gr.Column:
    """What is shown only while its room is: `#name` in the address."""
    return gr.Column(elem_classes=["room", f"room-{name}"])


def rules(rooms: Mapping[str, str]) -> str:
    """CSS that shows one room at a time; before the header's script has run that is the first."""
    first = next(iter(rooms))
    shown = ", ".join(f'body[data-room="{name}"] .room-{name}' for name in rooms)
    shown += f", body:not([data-room]) .room-{first}"
    return f".room:not(#_) {{ display: none; }} :is({shown}):not(#_) {{ display: flex; }}"


def limits() -> None:
    """On a public server one line that says what it allows."""
    if public():
        gr.HTML(f"<p>{escape(sentence(bool(machine().gpus)))}</p>", elem_id="limits", apply_default_css=False)


def header(rooms: Mapping[str, str]) -> gr.HTML:
    """Static, but for the switch, whose choice the browser keeps. `rooms` are titles by name, the first at first."""
    place = escape(machine().summary())
    ways = "".join(f'<a href="#{name}">{escape(title)}</a>' for name, title in rooms.items())
    return gr.HTML(
        '<header class="top"><a class="skip" href="#run">Skip to the controls</a>'
        f'{MARK}<h1>Pitlane</h1><nav aria-label="Rooms">{ways}</nav>'
        "<p>Switch an optimization on, watch what it buys.</p>"
        f'<span class="machine" title="This machine">{place}</span>'
        f'<button type="button" aria-label="Light or dark" title="Light or dark">{HALF}</button></header>',
        elem_id="top",
        js_on_load=ON_LOAD,
        apply_default_css=False,
    )
