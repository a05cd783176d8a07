"""A visitor's own runs, and the recordings: click one and it replays, choose several and compare or save them."""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import gradio as gr

from engine.export import entries
from engine.measure.comparison import compare
from engine.refusal import Refusal
from engine.run.columns import columns
from engine.run.recordings import recorded, shelf

ON_LOAD = """
const base = window.gradio_config.root + "/pitlane/";
const events = ["pick", "search", "compare", "save"];
import(base + "history.js").then((list) => list.mount({ element, props, watch, trigger, base }));
"""
SHOWN = ("id", "created", "title", "state", "model", "lanes", "simulated", "sentence")
LISTED = 50
RECENT_S = 600
TICKET_S = 300
MOST_CHOSEN = 8


class History:
    """The list with its events. `kinds` are the files that runs can be saved to, by the end of their names."""

    def __init__(self, jobs: Any, kinds: Mapping[str, Any]):
        self.jobs, self.kinds = jobs, kinds
        self.tickets: dict[str, tuple[float, list[str], str]] = {}

    def build(self, offered: Sequence[dict[str, str]]) -> gr.HTML:
        """Its value is `listed(...)`: JSON, drawn as text by static/history.js; so are the other properties.

        `recordings` are rows as those of the visitor's runs, with where each was `recorded`.
        """
        rows = [one.listed() for one in shelf().recordings.values()]
        self.list = gr.HTML(
            "{}",
            html_template='<section class="history" aria-label="Runs"></section>',
            js_on_load=ON_LOAD,
            apply_default_css=False,
            elem_id="history",
            kinds=json.dumps(list(offered)),
            recordings=_json([{key: row.get(key) for key in (*SHOWN, "recorded")} for row in rows]),
            comparison="",
            file="",
        )
        return self.list

    def wire(self, owner: gr.BrowserState) -> None:
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        self.list.search(self.search, [owner], [self.list], trigger_mode="always_last", **quiet)
        self.list.compare(self.compare, [owner], [self.list], **quiet)
        self.list.save(self.save, [owner], [self.list], **quiet)

    def listed(self, owner: str, words: str = "") -> str:
        """The newest rows of the list as a JSON string, and what must be said of the history."""
        store = self.jobs.store
        rows = [{key: run.get(key) for key in SHOWN} for run in store.history(owner, LISTED, words)]
        notice = " ".join(filter(None, (store.notice, *shelf().faults)))
        return _json({"runs": rows, "words": words, "more": len(rows) == LISTED, "notice": notice})

    def recent(self, owner: str) -> str | None:
        """The visitor's newest run, if it began a moment ago and what it was asked can be read."""
        with suppress(Refusal):
            for run in self.jobs.store.history(owner, 1):
                self.jobs.experiment(run["id"])
                return run["id"] if time.time() - run["created"] < RECENT_S else None
        return None

    def search(self, owner: str, event: gr.EventData) -> str:
        return self.listed(owner, str(event.words))

    def compare(self, owner: str, event: gr.EventData) -> Any:
        """Draw the chosen runs side by side, or say why not."""
        try:
            return gr.update(comparison=_json(compare(columns(self.jobs.store, self._chosen(owner, event.runs)))))
        except Refusal as refusal:
            return gr.update(comparison=_json({"problem": refusal.why}))

    def save(self, owner: str, event: gr.EventData) -> Any:
        """Hand out a ticket for a file of the chosen runs, or say why not."""
        try:
            runs, kind = self._chosen(owner, event.runs), str(event.kind)
            entries(self.jobs.store, runs)
        except Refusal as refusal:
            return gr.update(file=_json({"problem": refusal.why, "at": time.time()}))
        ticket = secrets.token_urlsafe(24)
        self.tickets[ticket] = (time.monotonic() + TICKET_S, runs, kind if kind in self.kinds else "json")
        return gr.update(file=_json({"ticket": ticket}))

    def file(self, ticket: str) -> tuple[str, bytes]:
        """Name and content of what a ticket is for. Raises Refusal for one that is unknown or too old."""
        now = time.monotonic()
        self.tickets = {known: until for known, until in self.tickets.items() if until[0] > now}
        if ticket not in self.tickets:
            raise Refusal("This link is too old.", "Press the button on the page once more.")
        _, runs, kind = self.tickets[ticket]
        name = f"pitlane-{runs[0][:8]}{f'-and-{len(runs) - 1}-more' if len(runs) > 1 else ''}.{kind}"
        return name, self.kinds[kind].make(entries(self.jobs.store, runs))

    def _chosen(self, owner: str, runs: Any) -> list[str]:
        """The chosen runs. Raises Refusal where one is neither this visitor's nor a recording."""
        chosen = [str(run) for run in runs][: MOST_CHOSEN + 1]
        if not 0 < len(chosen) <= MOST_CHOSEN:
            raise Refusal(f"Choose up to {MOST_CHOSEN} runs.", "Take some of them out of the choice.")
        for run in chosen:
            if not recorded(run) and (not owner or self.jobs.owner(run) != owner):
                raise Refusal(f"There is no run {run[:8]} of yours.", "Reload the page.")
        return chosen


def _json(data: Any) -> str:
    return json.dumps(data).replace("<", "\\u003c")
