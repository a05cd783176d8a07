"""What one decode step launches in each lane, ready to be drawn: a bar of the most frequent names, and a sentence."""

from collections.abc import Sequence
from typing import Any

NAMED = 8
"""Names that get a segment of their own; the rest of a step is one segment."""


def of(result: dict[str, Any]) -> dict[str, Any] | None:
    """The picture of a run's result."""
    lanes = result["lanes"]
    return picture([lane["name"] for lane in lanes], [lane["effective"].get("launches") for lane in lanes])


def picture(names: Sequence[str], records: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """`records` holds each lane's `effective["launches"]`; None where no lane has one.

    Segments carry `name`, `count`, `time` (share of the step's time, None where unknown) and `rank`: the same
    name has the same rank in every lane, and the rest has none. `most` is the longest bar.
    """
    known = [record for record in records if record and record["total"]]
    if not known:
        return None
    ranks = {name: rank for rank, name in enumerate(_common(known))}
    lanes = [_bar(record, ranks) if record and record["total"] else None for record in records]
    return {"most": max(record["total"] for record in known), "lanes": lanes, "sentence": _sentence(names, records)}


def _common(records: Sequence[dict[str, Any]]) -> list[str]:
    """The names that launch most in any lane."""
    most: dict[str, int] = {}
    for record in records:
        for row in record["top"]:
            most[row["name"]] = max(most.get(row["name"], 0), row["count"])
    return sorted(most, key=lambda name: -most[name])[:NAMED]


def _bar(record: dict[str, Any], ranks: dict[str, int]) -> dict[str, Any]:
    rows = sorted((row for row in record["top"] if row["name"] in ranks), key=lambda row: ranks[row["name"]])
    segments = [
        {"name": row["name"], "count": row["count"], "time": row["share"], "rank": ranks[row["name"]]} for row in rows
    ]
    if rest := record["total"] - sum(row["count"] for row in rows):
        segments.append({"name": "all others", "count": rest, "time": None, "rank": None})
    return {"unit": _unit(record), "total": record["total"], "calls": record["calls"], "segments": segments}


def _sentence(names: Sequence[str], records: Sequence[dict[str, Any] | None]) -> str:
    """The first lane's number, and what the others launch of it."""
    known = [(name, record) for name, record in zip(names, records, strict=True) if record and record["total"]]
    (name, first), others = known[0], known[1:]
    said = [f"One step of lane {name} launches {_count(first)}"]
    for other, record in others:
        much = round(record["total"] / first["total"], 2)
        word = "as many" if much == 1 else "fewer" if much < 1 else "more"
        said.append(f"lane {other} {word}{_calls(record)}" if much == 1 else f"lane {other} {word}: {_count(record)}")
    return f"{', '.join(said)}."


def _count(record: dict[str, Any]) -> str:
    return f"{record['total']:,} {_unit(record)}{_calls(record)}"


def _unit(record: dict[str, Any]) -> str:
    return record["unit"].removesuffix("s") if record["total"] == 1 else record["unit"]


def _calls(record: dict[str, Any]) -> str:
    """By how many calls the host started them, where that is not one each."""
    calls = record["calls"]
    return "" if calls == record["total"] else f" by {calls:,} call{'s' if calls != 1 else ''} of the host"
