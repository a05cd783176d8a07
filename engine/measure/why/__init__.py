"""Why: what a lane's own figures say about its difference from the first lane, one rule at a time."""

from dataclasses import replace
from typing import Any

from engine.measure.why.attempts import possible
from engine.measure.why.caches import prefix, recomputing, small_cache
from engine.measure.why.company import alone, empty_places, held_up, queueing, ranks, replicas, sharing
from engine.measure.why.compiling import payback, recompiles
from engine.measure.why.disturbed import disturbed, hint, timeless
from engine.measure.why.evidence import OPPOSITE, Finding, Pair, Side
from engine.measure.why.guessing import acceptance
from engine.measure.why.phases import first_token
from engine.measure.why.traffic import bytes_read, bytes_wasted, limit, threads
from engine.measure.why.waiting import waiting
from engine.measure.why.work import same_work, time_split, widening
from engine.spec import Experiment

RULES = (
    recompiles, recomputing, acceptance, sharing, replicas, ranks, alone, queueing, held_up, waiting, widening,
    bytes_read, bytes_wasted, threads, time_split, prefix, first_token, small_cache, same_work, empty_places, payback,
)  # fmt: skip
"""In order of strength: the first that explains the headline's direction is what the verdict's sentence says."""
HEADLINE = "output_tok_per_s"
SILENT = "The figures of this run do not say why."


def findings(experiment: Experiment, lanes: list[dict[str, Any]], verdicts: list[dict[str, Any]]) -> None:
    """Put `findings` into every lane of a result: what explains its difference from the first lane.

    A card is {"rule", "sentence", "evidence", "explains", "next"}; `next` maps addresses to values with which
    `plan_for` accepts the lane here. Where the lanes differ and no rule speaks, one card says so. The first lane's
    card says what limits it, if its ceiling is known. Where every round was withdrawn, cards say so, and only what does
    not depend on time is compared. Simulated lanes and those that did not run as labelled have none.
    """
    for lane in lanes:
        own = limit(Side(lane)) if comparable(lane, lane) else None
        own = hint(own) if own and disturbed(lane) else own
        lane["findings"] = [_tried(experiment, lane["name"], own).card()] if own and lane is lanes[0] else []
    for lane in lanes[1:]:
        about = {verdict["metric"]: verdict for verdict in verdicts if verdict["lane"] == lane["name"]}
        if comparable(lane, lanes[0]) and about.get(HEADLINE, {}).get("pairs"):
            pair = Pair(Side(lane), Side(lanes[0]), about)
            found = [_tried(experiment, lane["name"], one) for one in explain(pair)]
            lane["findings"] = [one.card() for one in found]
        elif comparable(lane, lanes[0]) and disturbed(lane) and (told := timeless(Side(lane), Side(lanes[0]))):
            lane["findings"] = [_tried(experiment, lane["name"], told).card()]


def spoken(cards: list[dict[str, Any]]) -> str:
    """What a verdict's sentence says of a lane's cards: the strongest that explains it, and what is paid back when."""
    strongest = next((card["sentence"] for card in cards if card["explains"]), "")
    paid = next((card["sentence"] for card in cards if card["rule"] == payback.__name__), "")
    return " ".join(filter(None, (strongest, paid)))


def comparable(lane: dict[str, Any], over: dict[str, Any]) -> bool:
    """Whether both lanes are real and ran what they say."""
    return not any(one["effective"].get("simulated") or one["effective"].get("unmet") for one in (lane, over))


def explain(pair: Pair) -> list[Finding]:
    """What the rules say of a pair, strongest first, seen from either lane; never empty where the headline moved."""
    found = [one for rule in RULES if (one := rule(pair) or _turned(rule(pair.swapped)))]
    word = pair.moved(HEADLINE)
    explained = sorted((one for one in found if one.explains is None or word in (None, one.explains)),
                       key=lambda one: one.explains is None)  # fmt: skip
    if word in ("faster", "slower") and not any(one.explains for one in explained):
        return [Finding("unknown", SILENT, {}), *explained]
    return explained


def _turned(finding: Finding | None) -> Finding | None:
    """What was found from the other lane's side: the direction turns, and what to try there is not tried here."""
    if finding is None:
        return None
    return replace(finding, explains=OPPOSITE.get(finding.explains, finding.explains), attempts=())


def _tried(experiment: Experiment, lane: str, finding: Finding) -> Finding:
    return replace(finding, next=next((one for one in finding.attempts if possible(experiment, lane, one)), None))
