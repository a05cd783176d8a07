"""The fate of a text: whether two lanes wrote the same and, where they parted, whether that is a tie or a fault."""

from collections.abc import Sequence
from typing import Any

TIE = 1e-3
"""Logits: in float32 a smaller lead decides nothing.

Adding in another order moved the embedded model's logits by up to 8e-5, bfloat16 by up to 0.86.
"""

Answers = dict[int, Sequence[int]]
"""Token ids of each request."""


def apart(ours: Sequence[int], other: Sequence[int]) -> int | None:
    """The place of the first token that differs between two answers; None where all are alike."""
    pairs = enumerate(zip(ours, other, strict=False))
    place = next((place for place, (a, b) in pairs if a != b), min(len(ours), len(other)))
    return place if place < max(len(ours), len(other)) else None


def parting(mine: Answers, theirs: Answers) -> tuple[int, int] | None:
    """The first request whose answers differ, and the place of the first token that does; None where all are alike."""
    for request in sorted(theirs):
        if (place := apart(mine.get(request, ()), theirs[request])) is not None:
            return request, place
    return None


def fault(equality: dict[str, Any]) -> bool:
    """Whether lanes that claim the same text differ by more than rounding: also in float32, and at no tie."""
    checked = equality.get("float32") or {}
    margin = checked.get("margin")
    return checked.get("identical") is False and (margin is None or margin["behind"] > TIE)


def fate(equality: dict[str, Any]) -> str:
    """One sentence on a lane's text beside the first lane's; empty where nothing was compared."""
    if equality["identical"] is None:
        return ""
    if equality["identical"]:
        return "Both wrote the same text."
    parted = f"Their texts part at token {equality['first_divergence'] + 1}"
    if equality.get("expected"):
        return f"{parted}, as is to be expected: they compute with different numbers."
    checked = equality.get("float32")
    if checked is None:
        return f"{parted}."
    if fault(equality):
        return f"{parted}{_also(checked)}: a real difference, not rounding."
    if checked["identical"] is None:
        return f"{parted}{_lead(equality)}; whether that is rounding was not checked in float32: {checked['why']}"
    if checked["identical"]:
        return f"{parted}, a near-tie{_lead(equality)}: in float32 both write the same."
    return f"{parted}, a tie even in float32{_lead(checked)}."


def _also(checked: dict[str, Any]) -> str:
    place = f"in float32 too, there at token {checked['first_divergence'] + 1}"
    return f", {place}{_lead(checked)}"


def _lead(found: dict[str, Any]) -> str:
    margin = found.get("margin")
    return f" (the token it would have taken is {margin['behind']:.2g} logits behind)" if margin else ""
