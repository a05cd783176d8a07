"""How full a batch was, by hand: padding of prompts, and places of requests that were done."""

import pytest

from engine.event import Request, Step
from engine.measure.occupancy import occupancy
from engine.measure.timeline import Timeline


def turn(*events) -> Timeline:
    line = Timeline()
    for event in events:
        line.see(event)
    return line


def test_a_ragged_batch_is_padded_and_runs_to_its_longest_answer():
    """Prompts of 10 and 4 tokens: 6 of 20 places are padding. Answers of 4 and 2 tokens: 2 of 8 places are idle."""
    both = [Step(place, (0, 1), ((1,), (1,))) for place in (1.0, 2.0)]
    line = turn(Request(0.0, 0, 10), Request(0.0, 1, 4), *both, *[Step(place, (0,), ((1,),)) for place in (3.0, 4.0)])
    found = occupancy([line])
    assert found["padding"] == pytest.approx(6 / 20) and found["idle"] == pytest.approx(2 / 8)
    assert (found["requests"], found["prompt_tokens"], found["output_tokens"]) == (2, 7, 3)


def test_requests_one_after_another_share_nothing():
    line = turn(Request(0.0, 0, 10), Step(1.0, (0,), ((1,),)), Request(1.0, 1, 4), Step(2.0, (1,), ((1,),)))
    found = occupancy([line])
    assert found["padding"] is None and found["idle"] is None


def test_without_an_answer_nothing_is_known():
    assert occupancy([turn(Request(0.0, 0, 10))]) is None
