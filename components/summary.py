"""What a run came to, for the stage: the verdict's sentences, the comparison table, and what really ran."""

from typing import Any

from engine.measure.fate import fate, fault
from engine.measure.metrics import ITL, METRICS
from engine.measure.quality import FIGURES, Figure
from engine.measure.verdict import share, together
from engine.measure.why.disturbed import disturbed

ENERGY = "What the whole device took in turns of 5 s and more, for each output token."
OTHERS = "Processor time that other programs took during the rounds: the browser of this page may be one of them."
COST = "Price of an hour by the output tokens of an hour. Set your own price under Sampling and template."
KV = (
    "The most that the kept keys and values took, at the end of the answers. Memory over a turn tells what they took "
    "at the moment of peak memory, which may come earlier."
)
FURTHER = (
    ("memory", "weights_bytes", "Weights", "bytes", "lower", "Bytes of the loaded model's weights."),
    ("memory", "kv_bytes", "Largest KV cache", "bytes", "lower", KV),
    ("memory", "peak_bytes", "Peak memory", "bytes", "lower", "The most that the engine's process held."),
    ("energy", "joules_per_token", "Energy per token", "J", "lower", ENERGY),
    ("cost", "per_million_tokens", "Cost of a million tokens", "$", "lower", COST),
    ("conditions", "others_cores", "Taken by other programs", "cores", "lower", OTHERS),
)
"""Rows of the table beside METRICS: where in a lane's result, key, title, unit, better, definition."""

TIMED = ("energy", "cost")
"""Where the figures stand on times, of which a disturbed run compares none."""
RATIOS = ("metrics", "memory", "energy", "cost")
"""Where the figures are results. What other programs did is a condition, of which a ratio says nothing."""

TIPS = {
    "rate": "While it runs: tokens per second over the last 1.5 s. Afterwards, median over the rounds: "
    + METRICS["output_tok_per_s"].definition,
    "ttft": METRICS["ttft_ms"].definition,
    "itl": f"{ITL.removesuffix(', pooled over all rounds')}: the median.",
    "memory": "In use: on a GPU what torch has allocated, else what the engine's process holds (resident).",
}
"""Definitions of the figures on a lane's card."""


DRAWN = ("launches", "unmet", "plan")
"""Of what really ran, what the stage shows in a picture or a note of its own."""


def summary(result: dict[str, Any] | None, state: str) -> dict[str, Any]:
    """JSON-ready: verdicts, rows and lanes; all empty where a run left no result."""
    if not result:
        return {"state": state, "verdicts": [], "rows": [], "lanes": []}
    headline = next(iter(METRICS))
    numbers = {lane["name"]: number for number, lane in enumerate(result["lanes"])}
    told = [v for v in result["verdicts"] if v["metric"] == headline and (v["pairs"] or v.get("withdrawn"))]
    verdicts = [{"lanes": [*map(numbers.get, lanes)], "sentence": said} for lanes, said in together(told)]
    return {
        "state": state,
        "verdicts": verdicts,
        "rows": _rows(result),
        "lanes": [_lane(lane) for lane in result["lanes"]],
    }


def _rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    judged = {(v["metric"], v["lane"]): v for v in result["verdicts"]}
    rows = [
        _row(result, ("metrics", m.name, m.title, m.unit, m.better, m.definition), judged) for m in METRICS.values()
    ]
    rows += [_quality(result, row) for row in FIGURES]
    rows += [_row(result, row, judged) for row in FURTHER]
    return [row for row in rows if any(cell["value"] is not None for cell in row["cells"])]


def _row(result: dict[str, Any], row: tuple[str, ...], judged: dict[tuple[str, str], Any]) -> dict[str, Any]:
    where, key, title, unit, better, definition = row
    found = [lane.get(where) or {} for lane in result["lanes"]]
    first, cells = found[0].get(key), []
    for lane, facts in zip(result["lanes"], found, strict=True):
        value, verdict = facts.get(key), judged.get((key, lane["name"]), {})
        sound = where not in TIMED or not disturbed(lane)
        beside = where in RATIOS and sound and not verdict and lane is not result["lanes"][0]
        plain = share(value, first) if beside and value else None
        cells.append(
            {
                "value": value,
                "ratio": verdict.get("ratio") or plain,
                **{part: verdict.get(part) for part in ("low", "high", "word", "pairs")},
            }
        )
    tip = f"{definition}{_source(found)}"
    return {
        "key": key, "title": title, "note": _priced(found), "unit": unit, "better": better, "tip": tip, "cells": cells
    }  # fmt: skip


def _priced(found: list[dict[str, Any]]) -> str:
    """What an hour was counted with and where that comes from, where a row has a price."""
    said = {f"at ${one['price_per_hour']:g} an hour: {one['source']}" for one in found if one.get("price_per_hour")}
    return "; ".join(sorted(said))


def _source(found: list[dict[str, Any]]) -> str:
    """Where the figures of a row come from, where they say so."""
    said = {", ".join(filter(None, (one.get("source"), one.get("date")))) for one in found} - {""}
    return f" Source: {'; '.join(sorted(said))}." if said else ""


def _quality(result: dict[str, Any], row: Figure) -> dict[str, Any]:
    """What the text is worth; a lossless lane has no figure, and a ratio of two losses says nothing."""
    cells = [{"value": row.read(lane)} for lane in result["lanes"]]
    return {"key": row.name, "title": row.title, "unit": row.unit, "better": row.better, "tip": row.definition, 
            "cells": cells}  # fmt: skip


def _lane(lane: dict[str, Any]) -> dict[str, Any]:
    equality = lane["equality"]
    failed = lane["status"] not in ("finished", "cancelled")
    return {
        "status": lane["status"],
        "why": " ".join(filter(None, (lane["why"], lane["hint"]))) if failed else None,
        "unmet": " ".join(lane["effective"].get("unmet", [])) or (fate(equality) if fault(equality) else ""),
        "parted": equality.get("parted"),
        "fate": fate(equality),
        "identical": equality["identical"],
        "reference": equality["reference"],
        "divergence": equality["first_divergence"],
        "effective": {
            key: said for key, value in lane["effective"].items() if key not in DRAWN and (said := _plain(value))
        },
        "costs": {key.removesuffix("_s"): cost for key, cost in lane["phases"].items() if cost},
    }


def _plain(value: Any) -> str | None:
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items() if inner not in (None, "")) or None
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or None
    return None if value in (None, "", False) else str(value)
