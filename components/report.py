"""Runs as one HTML file that opens anywhere: charts, table, verdict, text, setup and machine, with nothing fetched."""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import plotly

from components.report_charts import charts
from engine.measure.comparison import Column, addresses, compare
from engine.measure.metrics import METRICS
from engine.measure.verdict import figure
from engine.spec import Experiment

STATIC = Path(__file__).parent / "static"
PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
DASH = "–"
SHOWN = {
    "name",
    "lane",
    "status",
    "why",
    "hint",
    "rounds",
    "metrics",
    "memory",
    "tokens",
    "text",
    "effective",
    "phases",
}
"""Of a lane's result, what has a place of its own here; whatever else it holds follows as tables."""
COLUMNS = 8
"""So many lanes stand side by side; of more, each run stands for itself."""


def report(entries: Sequence[dict[str, Any]]) -> str:
    """The file's text. Text of models and people is escaped, and no script but the two in it may run.

    `entries` are as engine.export makes them. Raises Refusal for a run that this version cannot read.
    """
    drawn = [charts(Experiment.read(entry["experiment"]), entry["records"]) for entry in entries]
    columns = [[_column(entry, lane) for lane in entry["result"]["lanes"]] for entry in entries]
    every = [column for own in columns for column in own]
    together = _comparison(every) if len(entries) > 1 and len(every) <= COLUMNS else ""
    runs = [_run(*each) for each in zip(range(len(entries)), entries, columns, strict=True)]
    title = entries[0]["title"] or entries[0]["model"] if len(entries) == 1 else f"{len(entries)} runs"
    scripts = [PLOTLY.read_text("utf-8"), (STATIC / "report.js").read_text("utf-8")]
    return "\n".join([
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)} · Pitlane</title><style>{_style()}</style></head><body>",
        f"<main>{together}{''.join(runs)}</main>",
        f'<script type="application/json" id="charts">{_data(drawn)}</script>',
        *(f"<script>{script}</script>" for script in scripts), "</body></html>\n",
    ])  # fmt: skip


def _policy(scripts: Sequence[str]) -> str:
    """No request, and no script but these: told apart by their digests. Source: W3C, Content Security Policy 3."""
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"


def _style() -> str:
    """The page's own colours, light and dark, and the report's rules."""
    light, dark = re.findall(r"^(?::root|body\.dark) \{(.*?)^\}", (STATIC / "page.css").read_text("utf-8"), re.M | re.S)
    sheet = (STATIC / "report.css").read_text("utf-8")
    return f":root {{{light}}} @media (prefers-color-scheme: dark) {{ :root {{{dark}}} }} {sheet}"


def _data(drawn: Any) -> str:
    return json.dumps(drawn, allow_nan=False).replace("<", "\\u003c")


def _column(entry: dict[str, Any], lane: dict[str, Any]) -> Column:
    return Column(entry["id"], entry["created"], entry["title"], entry["result"], lane["name"])


def _run(number: int, entry: dict[str, Any], columns: list[Column]) -> str:
    when = datetime.fromtimestamp(entry["created"], UTC)
    facts = [f"{when:%Y-%m-%d %H:%M} UTC", entry["model"], f"run {entry['id']}", *["simulated"] * entry["simulated"]]
    asked = entry["experiment"]
    return "".join([
        f"<article><h1>{escape(entry['title'] or entry['model'])}</h1>",
        f"<p class='facts'>{escape(' · '.join(facts))}</p>",
        _paragraph(asked.get("why"), "why"), *map(_failure, entry["result"]["lanes"]),
        f"<div class='charts' data-run='{number}'></div>",
        _comparison(columns),
        "<h2>What the lanes wrote</h2>", *(_text(place, lane) for place, lane in enumerate(entry["result"]["lanes"])),
        *map(_cards, entry["result"]["lanes"]), *map(_further, entry["result"]["lanes"]),
        _facts("Setup", asked), _facts("Machine", entry["machine"]), "</article>",
    ])  # fmt: skip


def _failure(lane: dict[str, Any]) -> str:
    said = " ".join(filter(None, (lane["why"], lane["hint"])))
    return _paragraph(f"Lane {lane['name']}: {said}" if said else None, "problem")


def _paragraph(text: str | None, kind: str) -> str:
    return f"<p class='{kind}'>{escape(text)}</p>" if text else ""


def _comparison(columns: list[Column]) -> str:
    """Sentences, the table of metrics with its ratios, and where setups and machines differ."""
    found = compare(columns)
    several = len({column.run for column in columns}) > 1
    heads = [escape(head["label"] if several else head["lane"]) for head in found["columns"]]
    top = "".join(f"<th scope='col'><i class='lane-{place % 4}'></i>{head}</th>" for place, head in enumerate(heads))
    rows = "".join(map(_row, found["rows"]))
    differ = [*found["setup"], *found["machine"]]
    return "".join([
        *(_paragraph(text, "verdict") for text in found["sentences"]),
        f"<div class='wide'><table><thead><tr><th></th>{top}</tr></thead><tbody>{rows}</tbody></table></div>",
        f"<h2>Where they differ</h2>{_addresses(differ, top)}" if differ else "",
    ])  # fmt: skip


def _row(row: dict[str, Any]) -> str:
    definition = METRICS[row["key"]].definition if row["key"] in METRICS else ""
    better = {"higher": ", more is better", "lower": ", less is better"}.get(row["better"], "")
    unit = "MB" if row["unit"] == "bytes" else row["unit"]
    cells = "".join(_cell(unit, *each) for each in zip(row["values"], row["ratios"], row["bounds"], strict=True))
    name = f"<b>{escape(row['title'])}</b> <small>{escape(unit + better)}</small>"
    return f"<tr><th scope='row' title='{escape(definition)}'>{name}</th>{cells}</tr>"


def _cell(unit: str, value: float | None, ratio: float | None, bounds: list[float] | None) -> str:
    if value is None:
        return f"<td class='number'>{DASH}</td>"
    times = f" <small>{ratio:.2f}×</small>" if ratio is not None else ""
    between = f"<br><small>95 %: {bounds[0]:.2f} to {bounds[1]:.2f}</small>" if bounds else ""
    return f"<td class='number'>{figure(value / 1e6 if unit == 'MB' else value)}{times}{between}</td>"


def _addresses(rows: Sequence[dict[str, Any]], top: str) -> str:
    body = "".join(
        f"<tr><th scope='row'>{_called(row)}</th>{''.join(f'<td>{_said(value)}</td>' for value in row['values'])}</tr>"
        for row in rows
    )
    return f"<div class='wide'><table><thead><tr><th></th>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def _called(row: dict[str, Any]) -> str:
    code = f"<code>{escape(row['address'])}</code>"
    return f"{escape(row['title'])} <small>{code}</small>" if "title" in row else code


def _text(place: int, lane: dict[str, Any]) -> str:
    texts = "".join(f"<pre>{escape(text)}</pre>" for text in lane["text"]) or f"<p>{DASH}</p>"
    return f"<h3><i class='lane-{place % 4}'></i>{escape(lane['name'])}</h3>{texts}"


def _cards(lane: dict[str, Any]) -> str:
    """What explains a lane: the lists in its result whose entries are sentences."""
    lists = (value for name, value in lane.items() if name not in SHOWN and isinstance(value, list))
    said = [card["sentence"] for cards in lists for card in cards if isinstance(card, dict) and card.get("sentence")]
    return (
        f"<h3>Why lane {escape(lane['name'])}</h3>{''.join(_paragraph(text, 'card') for text in said)}" if said else ""
    )


def _further(lane: dict[str, Any]) -> str:
    """Whatever else this version measured of a lane, and what really ran."""
    rest = {name: value for name, value in lane.items() if name not in SHOWN and value not in (None, {}, [])}
    return "".join(
        _facts(f"Lane {lane['name']}: {name.replace('_', ' ')}", value)
        for name, value in {"what really ran": lane["effective"], "costs in seconds": lane["phases"], **rest}.items()
    )


def _facts(title: str, value: Any) -> str:
    """Plain data by its addresses, folded away."""
    rows = "".join(
        f"<tr><th scope='row'>{escape(address)}</th><td>{_said(leaf)}</td></tr>" for address, leaf in addresses(value)
    )
    table = f"<div class='wide'><table class='facts'>{rows}</table></div>"
    return f"<details><summary>{escape(title)}</summary>{table}</details>"


def _said(value: Any) -> str:
    return DASH if value is None else escape(f"{value:.6g}" if isinstance(value, float) else str(value))
