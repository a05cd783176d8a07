"""The sentence's reasons follow from what the two lanes really have switched on."""

import pytest

from engine.measure.result import _because
from engine.measure.verdict import Verdict
from engine.spec import Experiment

BF16, STATIC, OFF = (
    {"precision": {"dtype": "bfloat16"}},
    {"kv_cache": {"kind": "static"}},
    {"kv_cache": {"kind": "off"}},
)
EAGER, LOOKUP = {"attention": {"kernel": "eager"}}, {"prompt_lookup": {}}
UNKNOWN = {"identical": None}


def reason(over: dict, mine: dict, word: str, pairs: int = 8) -> str:
    lanes = {"A": {"opts": over}, "B": {"opts": mine}}
    experiment = Experiment.read({"workload": {"prompts": "x"}, "lanes": lanes})
    ratio = {"faster": 1.5, "slower": 0.6}.get(word, 1.0)
    verdict = Verdict("B", "A", "output_tok_per_s", ratio, None, None, pairs, word, "")
    return _because(experiment, "B", verdict, UNKNOWN)


@pytest.mark.parametrize(
    ("over", "mine", "word", "says"),
    [
        ({}, BF16, "faster", "half the bytes"),
        (BF16, {}, "slower", "twice the bytes"),
        (BF16, {}, "faster", ""),
        ({}, OFF, "slower", "without kept keys"),
        (OFF, {}, "faster", "one new token"),
        (OFF, STATIC, "faster", "one new token"),
        ({}, STATIC, "slower", ""),
        ({}, STATIC, "faster", ""),
        ({}, STATIC, "same", "only where they lie"),
        ({}, EAGER, "slower", "score matrix is written"),
        ({}, EAGER, "faster", ""),
        (EAGER, {}, "faster", "never writes"),
        ({}, LOOKUP, "slower", "wrong"),
        (LOOKUP, {}, "faster", "in lane A most guesses were wrong"),
        (LOOKUP, {}, "slower", "in lane A guesses copied"),
        ({"threads": {"count": 1}}, {"threads": {"count": 2}}, "faster", "more cores"),
        ({"threads": {"count": 2}}, {"threads": {"count": 1}}, "faster", ""),
        (BF16, BF16, "faster", ""),
    ],
)
def test_a_reason_is_only_given_where_it_can_be_one(over, mine, word, says):
    found = reason(over, mine, word)
    assert says in found if says else found == ""


def test_a_quick_look_does_not_claim_a_cause():
    assert reason({}, BF16, "faster", pairs=1).startswith(" If it is, likely because")
