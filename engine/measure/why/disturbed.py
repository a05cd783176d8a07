"""What a run still says of which every round was withdrawn: what does not depend on time."""

from dataclasses import replace
from typing import Any

from engine.measure.quality import price
from engine.measure.why.evidence import Finding, Side, figure, mb

SHOWN = {"peak_bytes": "memory.peak_bytes", "weights_bytes": "memory.weights_bytes"}


def disturbed(lane: dict[str, Any]) -> bool:
    """Whether every round of the lane was withdrawn, so that its times say nothing."""
    return bool(lane["rounds"]) and all(one.get("withdrawn") for one in lane["rounds"])


def hint(finding: Finding) -> Finding:
    """What a sentence on times is worth in such a run."""
    sentence = f"{finding.sentence[:1].lower()}{finding.sentence[1:]}"
    return replace(finding, sentence=f"By a run that was disturbed, so only a hint: {sentence}", attempts=())


def timeless(mine: Side, other: Side) -> Finding | None:
    """Tokens are counted and memory is read: neither depends on what else the machine did."""
    said = [*_guessed(mine), *_held(mine, other)]
    counted = f"What other programs cannot change: {', '.join(said)}." if said else ""
    sentence = " ".join(filter(None, (counted, price(mine.lane).strip())))
    if not sentence:
        return None
    evidence = {
        "tokens_per_step": mine.tokens_per_step if mine.guesses else None,
        "acceptance_rate": mine.get("speculation.acceptance_rate"),
        **{name: mine.get(path) for name, path in SHOWN.items()},
        **{f"over_{name}": other.get(path) for name, path in SHOWN.items()},
    }
    return Finding("timeless", sentence, evidence)


def _guessed(mine: Side) -> list[str]:
    if not mine.guesses:
        return []
    rate = mine.get("speculation.acceptance_rate")
    right = "" if rate is None else f" ({rate:.0%} of its guesses were right)"
    wrote = "1 token" if mine.tokens_per_step == 1 else f"{figure(mine.tokens_per_step)} tokens"
    return [f"a step of {mine.name} wrote {wrote}{right}"]


def _held(mine: Side, other: Side) -> list[str]:
    peak, instead = (side.get("memory.peak_bytes") for side in (mine, other))
    return [f"{mine.name} held {mb(peak)} of memory at most, {other.name} {mb(instead)}"] if peak and instead else []
