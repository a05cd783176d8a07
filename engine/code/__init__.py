"""A lane as code that runs without Pitlane: a script over transformers, or the nearest command that starts vLLM."""

from engine.code.form import Code
from engine.code.script import script
from engine.code.vllm import vllm
from engine.measure.machine import machine
from engine.refusal import Refusal
from engine.spec import Experiment, plan_for

FORMS = {"transformers": script, "vllm": vllm}


def code(experiment: Experiment, lane: str, form: str) -> Code:
    """One lane of an experiment in one of `FORMS`. Raises Refusal for a lane that is not there or cannot run here."""
    if lane not in experiment.lanes:
        raise Refusal(f"There is no lane {lane}.", f"There are {', '.join(experiment.lanes)}.")
    if not experiment.lanes[lane].backend.needs_model:
        raise Refusal("This lane has no model, so there is no code that runs it.", "Choose a lane that runs a model.")
    plan = plan_for(experiment.lanes[lane], experiment.model, machine())
    return FORMS[form](plan, experiment.workload, experiment.title, lane)
