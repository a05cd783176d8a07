"""Question: which preset a setup is, what was expected of it, and by what two setups are told apart."""

import hashlib
import json
from functools import cache
from typing import Any

from components.discretion import nameless
from engine.measure.metrics import METRICS
from engine.presets import presets
from engine.refusal import Refusal
from engine.spec import Experiment, Lane, Workload


def key(experiment: Experiment) -> str:
    """Equal for setups that ask the same of the same lanes, whoever asks and however many rounds."""
    data = nameless(experiment).to_dict()
    asked = json.dumps([data[part] for part in ("model", "workload", "lanes")], sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


@cache
def known() -> dict[str, str]:
    """The presets by their keys."""
    return {key(one): name for name, one in presets().items()}


def asked(model: str, work: Workload | None, lanes: dict[str, Lane]) -> dict[str, Any]:
    """What the form asks, for the stage: its `key`, and which preset that is. Empty while the form is not whole."""
    if work is None or not lanes or not model.strip():
        return {}
    told = {name: lane.model_dump(mode="json") for name, lane in lanes.items()}
    try:
        made = Experiment.read({"model": model.strip(), "workload": work.model_dump(mode="json"), "lanes": told})
    except Refusal:
        return {}
    return {"key": key(made), "question": known().get(key(made))}


def reasons(experiment: Experiment) -> list[str]:
    """Why it was asked and what its author expected, in a paragraph each."""
    return [text for text in (experiment.why, _expected(experiment)) if text]


def _expected(experiment: Experiment) -> str:
    expect = experiment.expect
    if not expect:
        return ""
    title = METRICS[expect.metric].title
    bounds = [f"at least {expect.at_least:g} times"] if expect.at_least is not None else []
    bounds += [f"at most {expect.at_most:g} times"] if expect.at_most is not None else []
    return f"Expected: {title} of lane {expect.lane} is {' and '.join(bounds)} that of lane {expect.over}."
