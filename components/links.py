"""Links: an experiment as text that fits into an address, and back; a button that makes one."""

import base64
import json
import zlib
from typing import Any

import gradio as gr

from engine.refusal import Refusal
from engine.spec import Experiment

ON_LOAD = """
const base = window.gradio_config.root + "/pitlane/";
const events = ["ask"];
import(base + "links.js").then((links) => links.mount({ element, props, watch, trigger, base }));
"""
VERSION = "1"
LONGEST = 8_000
"""Characters of a setup in an address."""
UNPACKED = 400_000
"""Characters that may come out of them."""
KEPT = ("model", "rounds", "quality", "price_per_hour", "workload", "lanes")
"""Of an experiment; a title or an explanation from a stranger's link would be read as ours."""
AGAIN = "Copy it again where it was made."


def button() -> gr.HTML:
    """Its event `ask` wants a value that holds `lanes`, which is what `packed` gives, or a `problem`."""
    return gr.HTML(
        "{}",
        html_template='<div class="share"></div>',
        js_on_load=ON_LOAD,
        apply_default_css=False,
        elem_id="share",
    )


def packed(experiment: Experiment) -> str:
    """An experiment as letters that an address may hold. Raises Refusal for one that is too long for that."""
    data = experiment.to_dict()
    text = json.dumps({key: data[key] for key in KEPT}, separators=(",", ":"), ensure_ascii=False)
    made = VERSION + base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")
    if len(made) > LONGEST or len(text) > UNPACKED:
        long = sum(map(len, experiment.workload.prompts)) + len(experiment.workload.system)
        why = f"This setup is too long for a link: its prompts have {long:,} characters."
        raise Refusal(why, "Run it and copy the link to the run, or shorten the prompts.")
    return made


def unpacked(text: str) -> Experiment:
    """The inverse of `packed`. Raises Refusal for a link that is broken, or that this version cannot read."""
    if len(text) > LONGEST:
        raise Refusal("This link is longer than any that Pitlane makes.", AGAIN)
    if text[:1] != VERSION:
        raise Refusal("This link was made by another version of Pitlane, or is broken.", AGAIN)
    data = _data(text[1:])
    try:
        return Experiment.read({key: value for key, value in data.items() if key in KEPT})
    except Refusal as refusal:
        why = f"This link holds a setup that this version of Pitlane does not know: {refusal.why}"
        raise Refusal(why, "Set the lanes by hand.") from None


def _data(text: str) -> dict[str, Any]:
    try:
        unzip = zlib.decompressobj()
        whole = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        found = json.loads(unzip.decompress(whole, 4 * UNPACKED))
        if not unzip.eof or not isinstance(found, dict):
            raise ValueError
    except (ValueError, zlib.error, RecursionError):
        raise Refusal("This link is broken: a part of it is missing or was changed.", AGAIN) from None
    return found
