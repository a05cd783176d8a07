"""What speed costs in quality, ready to be drawn: each lossy lane's distance from the model's own predictions."""

from datetime import datetime
from typing import Any

from engine.measure.quality import FIGURES

PARTS = {"text": "the opening of Alice's Adventures in Wonderland", "prompt": "this run's own prompts and answers"}


def of(result: dict[str, Any]) -> dict[str, Any] | None:
    """Of each lane None where it loses nothing, else its `parts` or a sentence `why` there are none.

    A part has its `title`, `kl_mean`, `kl_p99` (nats, None where unknown) and the figures as `rows` of key, title,
    value, unit and tip. `read` says when that was read, if it was an earlier run.
    """
    lanes = [_lane(lane) for lane in result["lanes"]]
    references = [lane["quality"]["reference"] for lane in result["lanes"] if lane.get("quality")]
    if not references:
        return None
    sentence = (
        f"Each lane reads the same tokens as {references[0]}, and at every token the two predictions are compared. "
        "Further left is nearer: 0 nats would be the same."
    )
    return {"lanes": lanes, "sentence": sentence}


def _lane(lane: dict[str, Any]) -> dict[str, Any] | None:
    quality = lane.get("quality")
    if not quality or not any(quality.get(part) for part in PARTS):
        return quality and {"why": quality["why"]}
    parts = [_part(lane, part, quality[part]) for part in PARTS if quality.get(part)]
    earlier = [quality[part]["read"] for part in PARTS if quality.get(part, {}).get("earlier")]
    return {"parts": parts, "read": f"{datetime.fromtimestamp(min(earlier)):%d %B %Y}" if earlier else None}


def _part(lane: dict[str, Any], part: str, figures: dict[str, Any]) -> dict[str, Any]:
    rows = [
        {"key": row.name, "title": row.title, "value": row.read(lane, part), "unit": row.unit, "tip": row.definition}
        for row in FIGURES
    ]
    title = f"{figures['tokens']:,} tokens of {PARTS[part]}"
    return {"part": part, "title": title, "kl_mean": figures["kl_mean"], "kl_p99": figures["kl_p99"], "rows": rows}
