"""Tell what a preset's lanes will take and how fast they can be at best, without loading anything."""

import argparse
import json
from typing import Any

from engine.address import assign
from engine.commands import OUT, assignments, json_flag, listing
from engine.measure.estimate import estimate
from engine.measure.fit import size, spans
from engine.measure.machine import machine
from engine.measure.verdict import figure
from engine.models.architecture import known
from engine.presets import preset
from engine.refusal import Refusal
from engine.spec import Experiment, plan_for

FOOT = "TTFT and TPOT are the least that this machine's memory and arithmetic allow, with every guess right."
UNMEASURED = "Speeds are unknown until this machine is measured: python -m engine machine --measure"


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", help="a name from presets/, or a TOML file")
    assignments(parser, "ADDRESS", "lanes.B.opts.precision.dtype=bfloat16")
    json_flag(parser)


def do(parsed: argparse.Namespace) -> int:
    """0 when every lane fits, 1 when one does not."""
    experiment = Experiment.read(assign(preset(parsed.preset).to_dict(), parsed.assignments))
    found = {name: foretold(experiment, name) for name in experiment.lanes}
    if parsed.json:
        OUT.print_json(json.dumps(found))
    else:
        foot = FOOT if machine().to_dict()["measured"] else UNMEASURED
        listing(parsed, [_row(name, one) for name, one in found.items()], foot)
    return 0 if all(one.get("fit", {}).get("fits") for one in found.values()) else 1


def foretold(experiment: Experiment, name: str) -> dict[str, Any]:
    """A lane's estimate, or `why` there is none."""
    lane = experiment.lanes[name]
    try:
        shape = known(experiment.model) if lane.backend.needs_model else None
        plan = plan_for(lane, experiment.model, machine(), shape)
        if shape is None:
            raise Refusal(_unknown(lane.backend.needs_model, experiment.model))
        return estimate(plan, shape, experiment.workload)
    except Refusal as refusal:
        return {"why": str(refusal)}


def _unknown(needs_model: bool, model: str) -> str:
    return f"The shape of {model} is known once it is here: run it once." if needs_model else "There is no model."


def _row(name: str, one: dict[str, Any]) -> dict[str, str]:
    if "why" in one:
        return {"lane": name, **dict.fromkeys(("weights", "KV", "needs", "TTFT", "TPOT", "tok/s"), "–"),
                "bound": "–", "fits": one["why"]}  # fmt: skip
    fitted, (first, token) = one["fit"], (one["ceiling"][phase] for phase in ("prefill", "decode"))
    spare = f"of {size(fitted['room'])}"
    return {
        "lane": name,
        "weights": size(fitted["weights"]),
        "KV": size(fitted["kv"]),
        "needs": spans(fitted),
        "TTFT": _ms(first),
        "TPOT": _ms(token),
        "tok/s": figure(one["tok_per_s"]) if one["tok_per_s"] else "–",
        "bound": token["bound"] or "–",
        "fits": f"yes, {spare}" if fitted["fits"] else f"no, {spare}",
    }


def _ms(phase: dict[str, Any]) -> str:
    return f"{figure(phase['predicted_ms'])} ms" if phase["predicted_ms"] else "–"
