"""What each toggle contributes, against figures worked out by hand, and the plan that measures it."""

import math

import pytest

from engine.measure.ablation import (
    alone,
    configurations,
    contrast,
    effects,
    interaction,
    last,
    percent,
    rest,
    sentence,
    share,
    together,
)
from engine.refusal import Refusal
from engine.run.ablate import Ablation
from engine.run.marks import marks
from engine.run.study import Entry, Outcome
from engine.spec import Experiment

NAMES = {"a": "compile", "b": "int8"}
NONE, A, B, AB = frozenset(), frozenset("a"), frozenset("b"), frozenset("ab")
# compile +31 %, int8 +22 %, together only +38 %: by hand, of 1.31 x 1.22 = 1.5982 that is 0.86347
RATES = {NONE: [100.0] * 6, A: [131.0] * 6, B: [122.0] * 6, AB: [138.0] * 6}


def test_three_toggles_are_measured_in_full_and_more_by_ones_and_all_but_one():
    assert len(configurations("abc")) == 8
    found = configurations("abcdef")
    assert len(found) == 14 and {len(one) for one in found} == {0, 1, 5, 6}
    assert configurations("a") == [frozenset(), frozenset("a")]


def test_effects_of_two_toggles_by_hand():
    assert contrast(RATES, alone("a")).ratio == pytest.approx(1.31)
    assert contrast(RATES, last("a", "ab")).ratio == pytest.approx(138 / 122)
    assert contrast(RATES, together("ab")).ratio == pytest.approx(1.38)
    assert contrast(RATES, interaction("ab")).ratio == pytest.approx(0.863471, abs=1e-6)
    shares = [contrast(RATES, share(one, "ab")).ratio for one in "ab"]
    assert shares[0] == pytest.approx(math.sqrt(1.31 * 138 / 122)) and math.prod(shares) == pytest.approx(1.38)
    assert rest("ab") == {}


def test_shapley_values_of_three_by_hand():
    """Logs 1, 2, 3 alone; each pair 1 more than its parts; all three 9: every share is its own plus 1."""
    logs = {"": 0, "a": 1, "b": 2, "c": 3, "ab": 4, "ac": 5, "bc": 6, "abc": 9}
    rates = {frozenset(some): [math.exp(value / 10)] for some, value in logs.items()}
    assert [10 * math.log(contrast(rates, share(one, "abc")).ratio) for one in "abc"] == pytest.approx([2, 3, 4])


def test_of_four_the_shares_and_the_rest_make_the_whole():
    toggles = "abcd"
    rates = {config: [1.0 + len(config) ** 2 / 10 + ("a" in config)] for config in configurations(toggles)}
    whole = math.prod(contrast(rates, share(one, toggles)).ratio for one in toggles)
    assert whole * contrast(rates, rest(toggles)).ratio == pytest.approx(contrast(rates, together(toggles)).ratio)


def test_drift_between_passes_falls_out_and_the_interval_is_students():
    drift = [1.0, 0.5, 2.0, 0.7, 1.3, 1.1]
    rates = {config: [value * d for value, d in zip(values, drift, strict=True)] for config, values in RATES.items()}
    found = contrast(rates, alone("a"))
    assert (found.ratio, found.low, found.high) == pytest.approx((1.31, 1.31, 1.31))
    wobbly = {NONE: [1.0, 1.0, 1.0], A: [math.exp(0.1), math.exp(0.2), math.exp(0.3)]}
    found = contrast(wobbly, alone("a"))  # mean 0.2, standard error 0.1 / sqrt(3), t of 2 degrees 4.302653
    assert math.log(found.high) == pytest.approx(0.2 + 4.302653 * 0.1 / math.sqrt(3), abs=1e-6)


def test_a_pass_without_one_of_the_figures_counts_for_nothing_that_needs_it():
    rates = {NONE: [1.0, 1.0, None], A: [2.0, None, 2.0], B: [], AB: [4.0, 4.0, 4.0]}
    assert contrast(rates, alone("a")).pairs == 1 and contrast(rates, together("ab")).pairs == 2
    assert contrast(rates, alone("b")) is None and contrast(rates, share("a", "ab")) is None
    assert effects(rates, NAMES)["toggles"][1]["alone"] is None


def test_a_pass_that_gave_nothing_is_not_left_out():
    rates = {NONE: [1.0, 0.0, 1.0], A: [2.0, 2.0, 2.0], B: [3.0, 3.0, 3.0], AB: [4.0, 4.0, 4.0]}
    assert contrast(rates, alone("a")) is None and sentence(rates, NAMES).startswith("Some of the figures are 0")


def test_the_sentence_says_less_only_when_that_is_sure():
    assert sentence(RATES, NAMES) == (
        "compile +31 %, int8 +22 %, together +38 %: less than the +60 % that they would give one by one."
    )
    wobble = [0.7, 1.4, 0.8, 1.3, 0.75, 1.35]
    unsure = {**RATES, AB: [138.0 * w for w in wobble]}
    assert "less" not in sentence(unsure, NAMES)
    assert sentence({k: v[:2] for k, v in RATES.items()}, NAMES).startswith("A quick look: ")
    assert sentence({}, NAMES) == "Nothing could be measured."
    assert [percent(ratio) for ratio in (1.31, 0.98, 0.999)] == ["+31 %", "−2 %", "+0 %"]


def experiment(**opts) -> Experiment:
    return Experiment.read({"workload": {"prompts": ["go"]}, "lanes": {"A": {"opts": opts}}})


def test_an_ablation_goes_forwards_and_then_backwards_over_all_combinations():
    study = Ablation(experiment(precision={"dtype": "bfloat16"}, prompt_lookup={}), passes=2)
    known, labels = {}, []
    while found := study.following(known):
        number, point = found
        labels.append(point.label)
        known[number] = Entry(number, point, Outcome("done", lanes={"A": {"output_tok_per_s": 1.0}}))
    assert len(labels) == study.total(known) == 8 and labels[4:] == labels[:4][::-1]
    assert set(labels) == {"none", "bfloat16", "prompt lookup 5", "bfloat16 + prompt lookup 5"}
    assert Ablation.from_dict(study.to_dict()).points == study.points
    known[7] = Entry(7, known[7].point, Outcome("done", lanes={"A": {"output_tok_per_s": 3.0}}))
    rows = marks(known)  # both passes of a combination are one mark
    assert (rows[0]["label"], rows[0]["figures"]["output_tok_per_s"], len(rows)) == (labels[0], 2.0, 4)


def test_a_combination_that_cannot_run_is_tried_once_and_said():
    study = Ablation(experiment(torchao={}, merged_projections={}), passes=3)
    known = {}
    while found := study.following(known):
        number, point = found
        both = "+" in point.label
        known[number] = Entry(number, point, Outcome("refused", "No.") if both else
                              Outcome("done", lanes={"A": {"output_tok_per_s": 1.0}}))  # fmt: skip
    assert len(known) == study.total(known) == 3 * 3 + 1
    assert "No." in study.summary(known)["sentence"] and study.summary(known)["effects"]["together"] is None


@pytest.mark.parametrize("lost", [{"lanes": {"A": {}}}, {"lanes": {"A": {"output_tok_per_s": 9.0}}, "spoiled": True}])
def test_a_withdrawn_round_is_made_up_for(lost):
    study = Ablation(experiment(prompt_lookup={}), passes=2)
    known = {}
    while found := study.following(known):
        number, point = found
        found = lost if number == 1 else {"lanes": {"A": {"output_tok_per_s": 1.0}}}
        known[number] = Entry(number, point, Outcome("done", **found))
    assert len(known) == 6 and study.summary(known)["effects"]["together"]["pairs"] == 2


@pytest.mark.parametrize(
    ("opts", "settings", "text"),
    [
        ({}, {}, "nothing switched on"),
        ({"prompt_lookup": {}}, {"toggles": ["torchao"]}, "not switched on in lane A"),
        ({"prompt_lookup": {}}, {"passes": 0}, "out of bounds"),
        ({"prompt_lookup": {}}, {"axis": "beauty"}, "no figure beauty"),
    ],
)
def test_bad_input_is_one_sentence(opts, settings, text):
    with pytest.raises(Refusal, match=text):
        Ablation(experiment(**opts), **settings)
