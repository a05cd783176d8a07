"""Foretold: what a configuration will come to by its model's shape and this machine's figures, before it is loaded."""

from math import ceil

from engine.measure.ceiling import planned
from engine.measure.estimate import asked, estimate
from engine.measure.machine import machine
from engine.measure.pareto import stated
from engine.spec import Experiment, plan_for


def foretold(experiment: Experiment) -> dict[str, float]:
    """Figures of the first lane by axis, as far as they can be told: at best, and at most for memory and loss.

    Times are those that the machine's memory and arithmetic allow, every guess being right: they rank configurations
    and are no forecast. Raises Refusal for a lane that cannot run.
    """
    lane, work = next(iter(experiment.lanes.values())), experiment.workload
    plan = plan_for(lane, experiment.model, machine())
    if plan.shape is None:
        return {}
    told = estimate(plan, plan.shape, work)
    found = {"peak": told["fit"]["peak"], "weights": told["fit"]["weights"], "kl": stated(lane)}
    first, gap = (told["ceiling"][phase]["predicted_ms"] for phase in ("prefill", "decode"))
    if first and gap:
        whole = first + gap * (work.max_new_tokens - 1)
        turns = ceil(work.count / planned(plan, *asked(work), work.count).rows / plan.replicas)
        rate = work.count * work.max_new_tokens * 1000 / (turns * whole)
        found |= {"ttft_ms": first, "tpot_ms": gap, "e2e_ms": whole, "output_tok_per_s": rate,
                  "decode_tok_per_s": told["tok_per_s"]}  # fmt: skip
    return {axis: value for axis, value in found.items() if value is not None}
