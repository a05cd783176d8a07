"""The cards of a result as the page shows them, and the rows of the translator."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from components import why
from components.page import Page
from components.translator import translations
from engine.event import Finished, Record, Request, Step
from engine.measure.dialects import DIALECTS
from engine.measure.why import findings
from engine.run.jobs import Jobs
from engine.run.store import Store
from engine.spec import Experiment

RUN = json.loads((Path(__file__).parents[1] / "engine" / "evidence" / "early-exit.json").read_text())
EXPERIMENT = Experiment.read({"rounds": 1, "workload": {"prompts": "x"}, "lanes": {"A": {}, "B": {}}})


def explained() -> dict:
    run = copy.deepcopy(RUN)
    findings(Experiment.read(run["experiment"]), run["lanes"], run["verdicts"])
    return run


def records(gap: float) -> list[Record]:
    """Both lanes write three tokens, `gap` seconds apart."""
    steps = [Step(gap * (place + 1), (0,), ((place,),)) for place in range(3)]
    events = [Request(0.0, 0, 5), *steps, Finished(gap * 3)]
    return [Record(lane, 0, event) for lane in (0, 1) for event in events]


def test_a_card_has_its_sentence_its_figures_beside_the_first_lanes_and_what_is_next():
    drawn = why.of(explained())
    assert drawn["lanes"][0] == []
    card = next(card for card in drawn["lanes"][1] if card["rule"] == "acceptance")
    assert card["word"] == "slower" and card["next"] == "Switch Early exit off"
    step = next(one for one in card["figures"] if one["title"] == "a step")
    assert step["value"] == pytest.approx(146, abs=1) and step["other"] == pytest.approx(40.3, abs=0.1)
    assert step["unit"] == "ms" and step["definition"].endswith(".")
    assert next(one for one in card["figures"] if one["title"] == "guesses right")["unit"] == "%"


def test_without_cards_there_is_no_picture():
    run = explained()
    for lane in run["lanes"]:
        lane["findings"] = []
    assert why.of(run) is None
    for lane in run["lanes"]:
        del lane["findings"]  # written by an earlier version
    assert why.of(run) is None


def test_every_benchmark_says_something_of_a_run_and_nothing_of_an_empty_one():
    found = translations(EXPERIMENT, records(0.1))
    assert [one["name"] for one in found] == list(DIALECTS)
    ttft = next(row for row in found[0]["rows"] if row["name"] == "Mean TTFT")
    assert ttft["values"] == [pytest.approx(100), pytest.approx(100)] and ttft["definition"]
    assert translations(EXPERIMENT, []) == []


def test_what_is_next_is_put_into_the_form(tmp_path):
    """The run's setup with the card's change, and a sentence that says so."""
    jobs = Jobs(Store(tmp_path / "history.db"))
    try:
        run, experiment = explained(), Experiment.read(RUN["experiment"])
        jobs.store.add("a" * 32, "somebody", experiment, {}, "running")
        lanes = [{**lane, "why": None} for lane in run["lanes"]]
        jobs.store.finish("a" * 32, "finished", {**run, "lanes": lanes, "verdicts": []})
        page = Page(jobs)
        page.build()
        card = next(place for place, card in enumerate(run["lanes"][1]["findings"]) if card["next"])
        filled = page.racing.attempt("somebody", SimpleNamespace(run="a" * 32, lane=1, card=card))
        assert "Lane B is changed: switch Early exit off" in str(filled[-1])
        as_it_was = page.form.fill(experiment)
        assert filled[:-1] != as_it_was[:-1]
    finally:
        jobs.close()
