"""Why cards: what the rules say of recorded real runs, and that they are silent where nothing supports them."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from engine.measure.machine import machine
from engine.measure.why import SILENT, findings, spoken
from engine.measure.why.attempts import attempted, wording
from engine.measure.why.figures import FIGURES, OVER, figures
from engine.spec import Experiment, plan_for

RUNS = {file.stem: json.loads(file.read_text()) for file in (Path(__file__).parent / "evidence").glob("*.json")}


def cards(run: dict[str, Any], lane: int = 1) -> dict[str, dict[str, Any]]:
    """The cards of a lane by their rules."""
    run = copy.deepcopy(run)
    findings(Experiment.read(run["experiment"]), run["lanes"], run["verdicts"])
    return {card["rule"]: card for card in run["lanes"][lane]["findings"]}


@pytest.mark.parametrize(
    ("run", "rule", "explains", "words"),
    [
        ("int8", "widening", None, "changing number formats takes 10.2 ms of each step of 39.1 ms, in 421 operators"),
        ("int8-dynamic", "time split", "slower", "the small operators around the products"),
        ("early-exit", "acceptance", "slower", "wrote 1.04 tokens and took 3.63× as long"),
        ("prompt-lookup", "acceptance", "faster", "wrote 5.22 tokens and took 1.78× as long"),
        ("static-cache", "small cache", "same", "23.6 MB beside 538 MB of weights"),
        ("static-cache", "same work", "same", "1,254 launches a step instead of 1,097 change little"),
        ("bfloat16", "bytes read", "faster", "reads 272 MB instead of 543 MB, 0.50× the bytes"),
        ("compiled", "payback", None, "paid back after 4,088 tokens, and all rounds together wrote 288"),
        ("batching", "sharing", "faster", "4 requests shared a step of lane B and 1 one of lane A"),
        ("prefix-reuse", "prefix", "faster", "81 % of the prompt tokens of lane B"),
        ("one-thread", "threads", "faster", "2 threads read the weights at 13.2 GB/s, 1 at 13.6 GB/s"),
        ("replicas", "replicas", "faster", "2 workers wrote side by side where lane A had 1"),
    ],
)
def test_a_real_run_is_explained_by_its_own_figures(run, rule, explains, words):
    found = cards(RUNS[run])
    assert rule in found, list(found)
    assert words in found[rule]["sentence"], found[rule]["sentence"]
    assert found[rule]["explains"] == explains


def test_times_of_a_disturbed_run_are_a_hint():
    run = copy.deepcopy(RUNS["bfloat16"])
    run["lanes"][0]["ceiling"] = {"decode": {"bytes": {"weights": 5e8}, "share": 0.3, "bound": "overhead"}}
    (sound,) = cards(run, 0).values()
    for one in run["lanes"][0]["rounds"]:
        one["withdrawn"] = "Withdrawn: other programs used 1.0 of 2 cores."
    (found,) = cards(run, 0).values()
    assert found["sentence"] == f"By a run that was disturbed, so only a hint: a{sound['sentence'][1:]}"
    assert sound["next"] and not found["next"]


@pytest.mark.parametrize(("run", "rule"), [("merged", "unknown")])
def test_where_no_figure_says_why_the_card_says_so(run, rule):
    found = cards(RUNS[run])
    assert list(found) == [rule] and found[rule]["sentence"] == SILENT
    assert spoken(list(found.values())) == "", "then the verdict goes on with what is likely"


@pytest.mark.parametrize("run", RUNS)
def test_no_rule_speaks_without_the_figures_it_needs(run):
    """Everything but the words of the verdicts is taken away: nothing may be made up."""
    empty = copy.deepcopy(RUNS[run])
    for lane in empty["lanes"]:
        lane["effective"] = {"unmet": []}
        lane["metrics"] = dict.fromkeys(lane["metrics"])
        lane["memory"] = dict.fromkeys(lane["memory"])
        lane["phases"] = dict.fromkeys(lane["phases"])
        lane["rounds"], lane["speculation"], lane["occupancy"] = [], None, None
    assert set(cards(empty)) <= {"unknown"}


@pytest.mark.parametrize("run", RUNS)
def test_seen_from_the_other_lane_the_direction_turns(run):
    """A explains why it is slower where B explained why it is faster, and nothing that is B's is tried on A."""
    mine = cards(RUNS[run])
    turned = copy.deepcopy(RUNS[run])
    turned["lanes"].reverse()
    turned["experiment"]["lanes"] = dict(reversed(turned["experiment"]["lanes"].items()))
    opposite = {"faster": "slower", "slower": "faster"}
    for verdict in turned["verdicts"]:
        verdict |= {
            "lane": verdict["over"],
            "over": verdict["lane"],
            "ratio": verdict["ratio"] and 1 / verdict["ratio"],
        }
        verdict["word"] = opposite.get(verdict["word"], verdict["word"])
    found = cards(turned)
    for rule in mine.keys() & found.keys():
        assert found[rule]["explains"] == opposite.get(mine[rule]["explains"], mine[rule]["explains"]), rule
    assert mine.keys() == found.keys()


@pytest.mark.parametrize("run", RUNS)
def test_every_figure_of_a_card_has_a_name_and_what_is_next_can_run_here(run):
    experiment = Experiment.read(RUNS[run]["experiment"])
    for rule, card in cards(RUNS[run]).items():
        named = {name for name in card["evidence"] if not name.startswith(OVER)} - {"kind", "bound"}
        assert named <= FIGURES.keys(), (rule, named - FIGURES.keys())
        assert all(isinstance(one["value"], int | float) for one in figures(card["evidence"]))
        if card["next"]:
            tried = attempted(experiment, "B", card["next"])
            plan_for(tried.lanes["B"], experiment.model, machine())
            assert tried.lanes["B"] != experiment.lanes["B"] and wording(card["next"])


def test_what_to_try_follows_from_the_figures():
    assert cards(RUNS["early-exit"])["acceptance"]["next"] == {"lane.opts.early_exit": False}
    assert cards(RUNS["prompt-lookup"])["acceptance"]["next"] == {"lane.opts.prompt_lookup.guesses": 10}


def test_a_lane_that_did_not_run_as_labelled_is_not_explained():
    run = copy.deepcopy(RUNS["bfloat16"])
    run["lanes"][1]["effective"]["unmet"] = ["Asked for dtype bfloat16, but float32 ran."]
    assert cards(run) == {}
