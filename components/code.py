"""Copy as code: every lane of a run as a script and as the nearest server command."""

from typing import Any

from engine.code import FORMS, code
from engine.refusal import Refusal
from engine.spec import Experiment

TITLES = {"transformers": "Script (transformers)", "vllm": "Server (vLLM)"}


def of(result: dict[str, Any]) -> dict[str, Any] | None:
    """For each lane its forms with their text, or why there is none; None where no lane has code."""
    try:
        experiment = Experiment.read(result["experiment"])
    except Refusal:  # recorded by a version with other optimizations
        return None
    lanes = [[_form(experiment, lane, form) for form in FORMS] for lane in experiment.lanes]
    return {"lanes": lanes} if any(form["text"] for lane in lanes for form in lane) else None


def _form(experiment: Experiment, lane: str, form: str) -> dict[str, Any]:
    try:
        return {"form": form, "title": TITLES[form], "text": code(experiment, lane, form).text, "why": None}
    except Refusal as refusal:
        return {"form": form, "title": TITLES[form], "text": None, "why": str(refusal)}
