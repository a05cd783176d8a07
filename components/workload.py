"""The workload's controls: model, prompts, lengths, rounds, sampling, and the way to plain data and back."""

from html import escape
from typing import Any

import gradio as gr
from gradio.components import Component

from components.controls import control, value
from engine.measure.machine import machine
from engine.models.catalogue import MODELS
from engine.public import offered, public
from engine.refusal import Refusal
from engine.spec import Experiment, Workload

BREAK = "---"
QUICK, VERDICT = 1, 8
SAMPLING = ("temperature", "seed", "fixed_length", "chat")
REQUESTS = ("system", "requests", "spread", "arrivals", "rate", "ttft_limit_ms", "tpot_limit_ms")
PLAIN = (*SAMPLING, *REQUESTS, "max_new_tokens")
"""Fields whose widgets hold their values as they are."""
PRICE, QUALITY = "price_per_hour", "quality"
WHOLE = (PRICE, QUALITY)
"""Fields of the experiment itself, beside its workload."""
RANDOM = "random:"
NOISE = "Random weights of a real architecture: nothing is fetched, and the text will be noise."

EXAMPLES = {
    "Explain": "Explain in one paragraph why the sky is blue.",
    "Repeat": (
        "Repeat this text word for word:\nThe lighthouse stands on a rock at the mouth of the bay. Every evening the "
        "keeper climbs the one hundred and twelve steps to the lamp, trims the wick, and lights it. Every morning he "
        "climbs the same one hundred and twelve steps to put it out."
    ),
    "Code": "Rewrite this function with type hints:\ndef area(width, height):\n    return width * height",
    "Four at once": f"\n{BREAK}\n".join(
        f"Say in two sentences what {thing} is." for thing in ("a pit stop", "a lap", "a gearbox", "slipstream")
    ),
}


def editor(start: Experiment) -> dict[str, Component]:
    """Build the controls inside the current block, keyed by address."""
    made: dict[str, Component] = {}
    made["model"] = gr.Dropdown(choices(), value=start.model, label="Model", allow_custom_value=True, elem_id="model")
    made["workload.prompts"] = gr.Textbox(
        joined(start), label="Prompt", lines=3, max_lines=6, elem_id="prompt",
        placeholder=f"What every lane is asked. Several prompts: a line {BREAK} between them.",
    )  # fmt: skip
    return made


def lengths(start: Experiment) -> dict[str, Component]:
    """Output length and rounds, side by side in the current row."""
    fields = Workload.model_fields
    return {
        "workload.max_new_tokens": control(
            "max_new_tokens", fields["max_new_tokens"], label="New tokens",
            value=start.workload.max_new_tokens, elem_id="tokens", min_width=90,
        ),
        "rounds": gr.Radio(
            rounds(start.rounds), value=start.rounds, label="Rounds", elem_id="rounds", min_width=180
        ),
    }  # fmt: skip


def sampling(start: Experiment) -> dict[str, Component]:
    """What is seldom changed."""
    titles = {"fixed_length": "Exactly that many tokens", "chat": "Chat template"}
    fields = Experiment.model_fields
    made = {
        name: control(
            name, fields[name], value=getattr(start, name), info=fields[name].description,
            elem_id=name.replace("_", "-"),
        )
        for name in WHOLE
    }  # fmt: skip
    return made | {
        f"workload.{name}": control(
            name, Workload.model_fields[name], label=titles.get(name, name.capitalize()),
            value=getattr(start.workload, name), elem_classes=["row", "knob"],
        )
        for name in SAMPLING
    }  # fmt: skip


def requests(start: Experiment) -> dict[str, Component]:
    """How many requests there are, when they come, and what counts as soon enough."""
    fields, settings = Workload.model_fields, {"system": {"lines": 2, "max_lines": 6}}
    return {
        f"workload.{name}": control(
            name, fields[name], value=getattr(start.workload, name), info=fields[name].description,
            elem_id=name.replace("_", "-"), **settings.get(name, {}),
        )
        for name in REQUESTS
    }  # fmt: skip


def rounds(chosen: int) -> list[tuple[str, int]]:
    """A quick look, a verdict, and whatever a preset asks for."""
    known = [(f"{QUICK} · quick look", QUICK), (f"{VERDICT} · verdict", VERDICT)]
    own = [] if chosen in (QUICK, VERDICT) else [(str(chosen), chosen)]
    return sorted([*known, *own], key=lambda choice: choice[1])


def choices() -> list[tuple[str, str]]:
    """The catalogue, then the same architectures with random weights; on a public server what that allows."""
    allowed = offered(bool(machine().gpus)) if public() else MODELS
    real = [
        (f"{model.title} · {_size(model.parameters)}{' · gated' * model.gated}", name)
        for name, model in MODELS.items()
        if name in allowed
    ]
    noise = [
        (f"{model.title} · {_size(model.parameters)} · random weights", RANDOM + name)
        for name, model in MODELS.items()
        if model.architecture and not model.comes and name in allowed
    ]
    return real + noise


def about(model: str) -> str:
    """One line of HTML on the chosen model."""
    known = MODELS.get(model.removeprefix(RANDOM))
    if not known:
        other = (
            "No model of this server's catalogue." if public() else "A hub id (owner/name) or a folder on this machine."
        )
        return f"<p>{other}</p>"
    facts = [f"{_size(known.parameters)} parameters", known.licence, f"context {known.context:,}"]
    facts += ["gated: the hub asks for an account"] if known.gated else []
    facts += [f"comes quantized ({known.comes}), is widened while it loads"] if known.comes else []
    text = NOISE if model.startswith(RANDOM) else " · ".join(facts)
    return f"<p>{escape(text)}</p>"


def asked(values: dict[str, Any]) -> dict[str, Any]:
    """An experiment's plain data without its lanes."""
    fields = Workload.model_fields
    data = {name: value(fields[name], values[f"workload.{name}"]) for name in PLAIN}
    prompts = [part.strip() for part in f"\n{values['workload.prompts']}\n".split(f"\n{BREAK}\n")]
    prompts = [part for part in prompts if part] or [""]
    return {
        "model": str(values["model"] or "").strip(),
        "rounds": values["rounds"],
        **{name: value(Experiment.model_fields[name], values[name]) for name in WHOLE},
        "workload": {**data, "prompts": prompts},
    }


def read(values: dict[str, Any]) -> Workload | None:
    """The workload that the widgets say; None while it is not whole."""
    try:
        return Experiment.read({**asked(values), "lanes": {"A": {}}}).workload
    except Refusal:
        return None


def shown(experiment: Experiment) -> dict[str, Any]:
    """The updates that show an experiment's workload: the inverse of `asked`."""
    work = experiment.workload
    updates = {f"workload.{name}": getattr(work, name) for name in PLAIN}
    return {
        "model": gr.update(value=experiment.model),
        "workload.prompts": joined(experiment),
        **{name: getattr(experiment, name) for name in WHOLE},
        "rounds": gr.update(choices=rounds(experiment.rounds), value=experiment.rounds),
        **updates,
    }


def joined(experiment: Experiment) -> str:
    return f"\n{BREAK}\n".join(experiment.workload.prompts)


def _size(parameters: int) -> str:
    return f"{parameters / 1e9:.1f}B" if parameters >= 1e9 else f"{parameters / 1e6:.0f}M"
