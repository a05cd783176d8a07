"""Lanes of different runs side by side: every difference of setup and machine is named, and nobody is called faster."""

import json
import re

import pytest

from engine.address import titled
from engine.commands.compare import table
from engine.measure.comparison import LABEL, Column, addresses, compare
from engine.measure.verdict import share, together
from engine.refusal import Refusal
from engine.run.columns import columns
from engine.run.store import Store
from tests.engine.runs import experiment, keep

FIRST, SECOND = "a" * 32, "b" * 32


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path / "history.db")
    keep(store, FIRST, experiment("First", rounds=8))
    keep(store, SECOND, experiment("Second", rounds=2, tokens=16, opts={"prompt_lookup": {"guesses": 3}}))
    return store


def test_setups_differ_by_address(store):
    found = compare(columns(store, [f"{FIRST[:6]}:A", f"{SECOND}:B"]))
    setup = {row["address"]: row["values"] for row in found["setup"]}
    assert setup == {
        "title": ["First", "Second"], "rounds": [8, 2], "workload.max_new_tokens": [8, 16],
        "lane.opts.prompt_lookup.guesses": [None, 3], "lane.opts.prompt_lookup.ngram": [None, 2],
        "lane.opts.prompt_lookup.adaptive": [None, False],
    }  # fmt: skip
    assert [head["label"] for head in found["columns"]] == ["aaaaaaaa:A", "bbbbbbbb:B"]


def test_an_optimization_without_knobs_is_a_difference(tmp_path):
    store = Store(tmp_path / "history.db")
    keep(store, FIRST, experiment("One", opts={"merged_projections": {}}))
    setup = {row["address"]: row["values"] for row in compare(columns(store, [FIRST]))["setup"]}
    assert setup["lane.opts.merged_projections"] == [None, "on"]


def test_metrics_stand_side_by_side_with_a_ratio_to_the_first(store):
    found = compare(columns(store, [f"{FIRST}:A", f"{SECOND}:B"]))
    tpot = next(row for row in found["rows"] if row["key"] == "tpot_ms")
    assert tpot["values"] == pytest.approx([10.0, 5.0]) and tpot["ratios"][1] == pytest.approx(0.5)
    assert tpot["ratios"][0] is None and tpot["bounds"] == [None, None]


def test_no_verdict_is_given_across_runs(store):
    found = compare(columns(store, [f"{FIRST}:A", f"{SECOND}:B"]))
    assert found["sentences"] == [LABEL]
    said = json.dumps(found) + table(found)
    assert not re.search("faster|slower|as fast", said)


def test_each_run_keeps_its_own_verdict(store):
    label, first, second = compare(columns(store, [FIRST, SECOND]))["sentences"]
    assert label == LABEL and first.startswith("First: Lane B is") and second.startswith("Second: A quick look: lane B")


def test_what_is_said_of_several_lanes_is_said_once():
    said = [{"lane": name, "sentence": "Every round was withdrawn."} for name in "BCD"]
    assert together(said) == [(["B", "C", "D"], "Lanes B, C and D: every round was withdrawn.")]
    assert together([*said[:1], {"lane": "C", "sentence": "Lane C is slower."}])[0] == (["B"], said[0]["sentence"])


def test_a_ratio_to_next_to_nothing_is_none():
    assert share(0.02, 1.7e-12) is share(3.0, 0.0) is share(None, 2.0) is None and share(0.0, 2.0) == 0
    assert share(2.0, 4.0) == 0.5


@pytest.mark.parametrize(("address", "title"), [
    ("workload.prompts.0", "Prompt 1"), ("lane.opts.prompt_lookup.ngram", "Prompt lookup: match length"),
    ("lane.opts.prompt_lookup", "Prompt lookup"), ("lane.backend", "Engine"),
    ("workload.max_new_tokens", "Max new tokens"),
    ("price_per_hour", "Price per hour, $"), ("lane.device", "Device"), ("lane.backend.burst", "Engine: burst"),
])  # fmt: skip
def test_addresses_have_plain_names(address, title):
    assert titled(address) == title


def test_within_one_run_its_own_verdict_holds(store):
    found = compare(columns(store, [FIRST]))
    assert "as fast as lane A" in found["sentences"][0] and LABEL not in found["sentences"]
    tpot = next(row for row in found["rows"] if row["key"] == "tpot_ms")
    assert tpot["bounds"][1] == pytest.approx([0.5, 0.5], rel=1e-6)
    assert "95 %" in table(found)


def test_a_quick_look_has_no_interval(store):
    found = compare(columns(store, [SECOND]))
    assert all(bounds == [None, None] for bounds in (row["bounds"] for row in found["rows"]))


def test_machines_that_differ_are_named(store):
    first, second = (Column(run, 0.0, "", store.run(run)["result"], "A") for run in (FIRST, SECOND))
    second.result["machine"]["processor"] = "Another"
    second.result["machine"]["packages"]["torch"] = "2.11.0"
    found = compare([first, second])
    assert {row["address"] for row in found["machine"]} == {"processor", "packages.torch"}
    assert found["sentences"][-1] == "The machines differ: processor, packages.torch."
    same = compare([first, first])
    assert same["machine"] == [] and same["setup"] == []


def test_unknown_is_a_dash_and_has_no_ratio(store):
    first, second = columns(store, [f"{FIRST}:A", f"{SECOND}:B"])
    second.found["metrics"]["tpot_ms"] = None
    found = compare([first, second])
    row = next(row for row in found["rows"] if row["key"] == "tpot_ms")
    assert row["ratios"] == [None, None]
    assert re.search(r"Time per token \(TPOT\), ms +\| 10 +\| – ", table(found))


@pytest.mark.parametrize(
    ("named", "says"),
    [
        (["nope", FIRST], "There is no run nope"),
        ([f"{FIRST}:Z", FIRST], "has no lane Z"),
        ([f"{FIRST}:A"], "1 lane cannot be compared"),
        ([FIRST, SECOND, FIRST, SECOND, FIRST], "10 lanes cannot be compared"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(named, says, store):
    with pytest.raises(Refusal, match=says):
        columns(store, named)


def test_a_run_that_goes_on_has_no_columns(store):
    store.add("c" * 32, "me", experiment(), {}, "running")
    with pytest.raises(Refusal, match="it is running"):
        columns(store, ["c" * 32])


def test_addresses_reach_every_leaf():
    found = dict(addresses({"a": {"b": [1, {"c": 2}]}, "d": {}, "e": [], "f": None}))
    assert found == {"a.b.0": 1, "a.b.1.c": 2, "d": "on", "e": [], "f": None}
