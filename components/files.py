"""The files that a run can be saved to: what each is called and good for, and how it is made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from components.report import report
from engine.export import FILES, Entry


@dataclass(frozen=True)
class File:
    """One kind of file. `tip` says what it is good for."""

    title: str
    tip: str
    make: Callable[[Sequence[Entry]], bytes]


KINDS = {
    "html": File(
        "Report",
        "One HTML file with charts, table, text, setup and machine. It opens without a network.",
        lambda entries: report(entries).encode(),
    ),
    "json": File("Data (JSON)", "Everything, exactly. python -m engine import puts it into a history.", FILES["json"]),
    "rounds.csv": File("Rounds (CSV)", "A row for each round of a lane, with every metric.", FILES["rounds.csv"]),
    "steps.csv": File(
        "Steps (CSV)", "A row for each step of the engine, with its time and tokens.", FILES["steps.csv"]
    ),
    "rounds.parquet": File("Rounds (Parquet)", "The rounds as typed columns, for pandas.", FILES["rounds.parquet"]),
    "steps.parquet": File("Steps (Parquet)", "The steps as typed columns, for pandas.", FILES["steps.parquet"]),
}


def kinds() -> list[dict[str, str]]:
    """JSON-ready, in the order in which they are offered."""
    return [{"name": name, "title": kind.title, "tip": kind.tip} for name, kind in KINDS.items()]


def of(result: dict[str, Any]) -> dict[str, Any] | None:
    """What a run's end offers to be saved; None where nothing was measured."""
    return {"kinds": kinds()} if any(lane["rounds"] for lane in result["lanes"]) else None
