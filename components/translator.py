"""The translator above the comparison: the same run under the names and formulas of other benchmarks."""

from collections.abc import Iterable
from typing import Any

from engine.event import Record
from engine.measure.dialects import DIALECTS, translate
from engine.measure.result import fold
from engine.spec import Experiment


def translations(experiment: Experiment, records: Iterable[Record]) -> list[dict[str, Any]]:
    """JSON-ready: each benchmark with its rows for this run; those that have none are left out."""
    lanes = [list(one.clean.values()) for one in fold(experiment, records)]
    found = [
        {"name": name, "title": one.title, "source": one.source, "rows": translate(one, lanes)}
        for name, one in DIALECTS.items()
    ]
    return [one for one in found if one["rows"]]
