"""Lanes of different runs side by side: where their setups and machines differ, and their metrics without a verdict."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from engine.address import titled
from engine.measure.metrics import METRICS
from engine.measure.quality import FIGURES
from engine.measure.verdict import MIN_PAIRS, share, together

LABEL = "Not interleaved: different runs, no verdict. What else the machine did may be all of the difference."
MEMORY = (("weights_bytes", "Weights"), ("kv_bytes", "KV cache"), ("peak_bytes", "Peak memory"))
FURTHER = ("energy", "cost")
"""Sections of a lane whose numbers follow, under their own addresses."""
TOLD = ("lanes", "expect", "why")
"""Of what was asked, what is not the setup of a lane."""
MEASURED = ("measured", "memory_bytes")
"""Of a machine's fingerprint, what is never twice the same."""


@dataclass(frozen=True)
class Column:
    """One lane of one run: the run's id, when it began (seconds since 1970), its title, its result, the lane's name.

    `recorded` says of a recording where it comes from.
    """

    run: str
    created: float
    title: str
    result: dict[str, Any]
    lane: str
    recorded: str = ""

    @property
    def label(self) -> str:
        return f"{self.run[:8]}:{self.lane}"

    @property
    def found(self) -> dict[str, Any]:
        return next(lane for lane in self.result["lanes"] if lane["name"] == self.lane)

    @property
    def setup(self) -> dict[str, Any]:
        """What was asked of this lane, by address; a lane's own addresses begin with `lane`."""
        asked = {name: value for name, value in self.result["experiment"].items() if name not in TOLD}
        found = dict(addresses({**asked, "lane": self.result["experiment"]["lanes"][self.lane]}))
        return {address: value for address, value in found.items() if address != "lane.opts"}


def compare(columns: Sequence[Column]) -> dict[str, Any]:
    """JSON-ready: the columns, the differences of setup and machine, the rows of metrics, and what must be said.

    A row's `ratios` are those of its values to the first one, None where one of the two is unknown. Within one run
    they are its verdicts' ratios of paired rounds, with their 95 % interval in `bounds` where there is one.
    """
    machines = _different([dict(addresses(column.result["machine"])) for column in columns])
    machines = [row for row in machines if not row["address"].startswith(MEASURED)]
    rows = list(_rows([column.found for column in columns]))
    return {
        "columns": [_head(column) for column in columns],
        "setup": [{**row, "title": titled(row["address"])} for row in _different([one.setup for one in columns])],
        "machine": machines,
        "rows": [_judged(row, columns) for row in rows if any(value is not None for value in row["values"])],
        "sentences": _sentences(columns, machines),
    }


def addresses(value: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of plain data by its dotted address; an empty table is one."""
    inner = (
        [*value.items()] if isinstance(value, dict) else [*enumerate(value)] if isinstance(value, list | tuple) else []
    )
    if not inner:
        yield before, "on" if value == {} else value
    for name, part in inner:
        yield from addresses(part, f"{before}.{name}" if before else str(name))


def _head(column: Column) -> dict[str, Any]:
    found = column.found
    return {
        "label": column.label,
        "run": column.run,
        "lane": column.lane,
        "created": column.created,
        "title": column.title,
        "recorded": column.recorded,
        "status": found["status"],
        "rounds": len(found["rounds"]),
        "unmet": " ".join(found["effective"].get("unmet", [])),
    }


def _different(tables: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Addresses at which not all tables hold the same; None where one has no such address."""
    every = dict.fromkeys(address for table in tables for address in table)
    rows = [{"address": address, "values": [table.get(address) for table in tables]} for address in every]
    return [row for row in rows if any(value != row["values"][0] for value in row["values"])]


def _rows(lanes: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for metric in METRICS.values():
        yield _row(
            metric.name, metric.title, metric.unit, metric.better, [lane["metrics"].get(metric.name) for lane in lanes]
        )
    for key, title in MEMORY:
        yield _row(key, title, "bytes", "lower", [lane["memory"].get(key) for lane in lanes])
    for figure in FIGURES:  # a ratio of two losses says nothing
        row = _row(figure.name, figure.title, figure.unit, figure.better, [figure.read(lane) for lane in lanes])
        yield row | {"ratios": [None] * len(lanes)}
    tables = [_numbers({name: lane.get(name) for name in FURTHER}) for lane in lanes]
    for address in dict.fromkeys(address for table in tables for address in table):
        yield _row(
            address, address.replace(".", " ").replace("_", " "), "", "", [table.get(address) for table in tables]
        )


def _numbers(table: dict[str, Any]) -> dict[str, float]:
    return {address: value for address, value in addresses(table) if type(value) in (int, float)}


def _row(key: str, title: str, unit: str, better: str, values: list[float | None]) -> dict[str, Any]:
    ratios = [share(value, values[0]) for value in values[1:]]
    return {"key": key, "title": title, "unit": unit, "better": better, "values": values, "ratios": [None, *ratios]}


def _judged(row: dict[str, Any], columns: Sequence[Column]) -> dict[str, Any]:
    """The row with what the run of the first column found in pairs of rounds."""
    verdicts = [_verdict(columns[0], column, row["key"]) for column in columns]
    ratios = [found.get("ratio") or plain for found, plain in zip(verdicts, row["ratios"], strict=True)]
    bounds = [[v["low"], v["high"]] if v.get("low") and v["pairs"] >= MIN_PAIRS else None for v in verdicts]
    return {**row, "ratios": ratios, "bounds": bounds}


def _verdict(first: Column, column: Column, metric: str) -> dict[str, Any]:
    """What the run says of this lane against the first one; empty for lanes of two runs."""
    verdicts = column.result["verdicts"] if column.run == first.run else ()
    own = (v for v in verdicts if (v["metric"], v["lane"], v["over"]) == (metric, column.lane, first.lane))
    return next(own, {})


def _sentences(columns: Sequence[Column], machines: Sequence[dict[str, Any]]) -> list[str]:
    runs = dict.fromkeys(column.run for column in columns)
    said = [LABEL] if len(runs) > 1 else []
    headline = next(iter(METRICS))
    for run in runs:
        own = [column for column in columns if column.run == run]
        verdicts = [found for column in own for over in own if (found := _verdict(over, column, headline))]
        said += [f"{_before(own[0], len(runs))}{sentence}" for _, sentence in together(verdicts)]
    if machines:
        named = ", ".join(row["address"] for row in machines)
        said.append(f"The machines differ: {named}.")
    alone = [column for column in columns if column.run != columns[0].run]
    said += [f"{column.label}: {unmet}" for column in alone if (unmet := _head(column)["unmet"])]
    return said


def _before(column: Column, runs: int) -> str:
    """Whose verdict follows, where several runs have one."""
    name = column.title or column.run[:8]
    return "" if runs == 1 else f"{name} " if name.endswith("?") else f"{name}: "
