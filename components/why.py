"""Why a lane is faster or slower: its cards, each a sentence with its figures and what to try next."""

from typing import Any

from engine.measure.why.attempts import wording
from engine.measure.why.figures import figures


def of(result: dict[str, Any]) -> dict[str, Any] | None:
    """The cards of every lane of a run's result; None where none has any."""
    lanes = [[_card(card) for card in lane.get("findings", ())] for lane in result["lanes"]]
    return {"lanes": lanes} if any(lanes) else None


def _card(card: dict[str, Any]) -> dict[str, Any]:
    words = wording(card["next"]) if card["next"] else ""
    return {
        "rule": card["rule"],
        "sentence": card["sentence"],
        "word": card["explains"],
        "figures": figures(card["evidence"]),
        "next": f"{words[:1].upper()}{words[1:]}",
    }
