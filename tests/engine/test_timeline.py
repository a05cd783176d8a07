"""Metrics against a timetable that can be checked by hand."""

import pytest

from engine.event import Phase, Request, Step
from engine.measure.acceptance import speculation
from engine.measure.metrics import METRICS, acceptance, itl_ms, percentile
from engine.measure.timeline import Timeline


def line(*events) -> Timeline:
    timeline = Timeline()
    for event in events:
        timeline.see(event)
    return timeline


def plain() -> Timeline:
    """10 prompt tokens, first token after 200 ms, then 20 ms each, 5 tokens."""
    steps = [Step(1.2 + 0.02 * n, (0,), ((n,),), ((str(n),),)) for n in range(5)]
    return line(Request(1.0, 0, 10), *steps)


def test_one_request_has_the_figures_of_its_timetable():
    values = {name: metric.read(plain()) for name, metric in METRICS.items()}
    assert values["ttft_ms"] == pytest.approx(200)
    assert values["tpot_ms"] == pytest.approx(20)
    assert values["e2e_ms"] == pytest.approx(280)
    assert values["output_tok_per_s"] == pytest.approx(5 / 0.28)
    assert values["prefill_tok_per_s"] == pytest.approx(50)
    assert itl_ms(plain()) == pytest.approx([20] * 4)
    assert plain().text(0) == "01234"


def test_tokens_accepted_in_one_step_share_its_time():
    timeline = line(
        Request(0.0, 0, 4),
        Step(0.1, (0,), ((1,),)),
        Step(0.4, (0,), ((2, 3, 4),), drafted=4, accepted=2),
    )
    assert itl_ms(timeline) == pytest.approx([100, 100, 100])
    assert METRICS["tpot_ms"].read(timeline) == pytest.approx(100)
    assert acceptance(timeline) == pytest.approx(3)
    assert timeline.requests[0].accepted == [False, True, True, False]


def test_a_first_step_that_gave_several_tokens_is_no_step_after_the_first():
    """Four steps of five tokens, 200 ms apart: no step gave more than five, and each of them took 40 ms."""
    steps = [Step(1.2 + 0.2 * n, (0,), (tuple(range(5)),), drafted=4, accepted=4) for n in range(4)]
    values = {name: metric.read(line(Request(1.0, 0, 10), *steps)) for name, metric in METRICS.items()}
    assert values["tokens_per_step"] == pytest.approx(5)
    assert values["tpot_ms"] == pytest.approx(40) and values["decode_tok_per_s"] == pytest.approx(25)
    alone = line(Request(1.0, 0, 10), steps[0])
    assert METRICS["tpot_ms"].read(alone) is None and METRICS["decode_tok_per_s"].read(alone) is None


def test_guesses_are_counted_by_their_place_in_the_draft():
    """Three steps with guesses: 2 of 4, none of 2, all of 1; and one without."""
    steps = [((2, 3, 4), 4, 2), ((5,), 2, 0), ((6, 7), 1, 1), ((8,), 0, 0)]
    events = [Step(0.2 + n, (0,), (new,), drafted=d, accepted=a) for n, (new, d, a) in enumerate(steps)]
    found = speculation([line(Request(0.0, 0, 4), Step(0.1, (0,), ((1,),)), *events)])
    assert (found["drafted"], found["accepted"]) == (7, 3)
    assert found["acceptance_rate"] == pytest.approx(3 / 7)
    assert found["acceptance_length"] == pytest.approx(2)
    assert found["accepted_by_position"] == pytest.approx([2 / 3, 1 / 2, 0, 0])


def test_requests_that_guess_weigh_by_their_steps():
    """One request: 4 tokens in one step, 3 of 3 right. The other: 2 in two steps, 0 of 2 right and nothing guessed."""
    events = [
        Request(0.0, 0, 4), Step(0.1, (0,), ((1,),)), Step(0.2, (0,), ((2, 3, 4, 5),), drafted=3, accepted=3),
        Request(0.2, 1, 4), Step(0.3, (1,), ((1,),)), Step(0.4, (1,), ((2,),), drafted=2), Step(0.5, (1,), ((3,),)),
    ]  # fmt: skip
    found = line(*events)
    assert METRICS["tokens_per_step"].read(found) == pytest.approx(6 / 3), "not the mean of 4 and 1"
    assert METRICS["acceptance_percent"].read(found) == pytest.approx(60)
    assert speculation([found])["acceptance_length"] == pytest.approx(1 + 3 / 2), "a step without guesses is left out"
    assert METRICS["tokens_per_step"].read(plain()) is METRICS["acceptance_percent"].read(plain()) is None


def test_guesses_that_nobody_counted_are_unknown_and_not_zero():
    untold = line(Request(0.0, 0, 4), Step(0.1, (0,), ((1,),)), Step(0.2, (0,), ((2, 3),), accepted=1))
    found = speculation([untold])
    assert found["accepted"] == 1 and found["drafted"] is None and found["accepted_by_position"] is None
    assert speculation([plain()]) is None


def test_a_batch_counts_every_token_and_each_prompt_once():
    timeline = line(
        Request(0.0, 0, 10),
        Request(0.0, 1, 30),
        Step(0.2, (0, 1), ((1,), (1,))),
        Step(0.3, (0, 1), ((2,), (2,))),
    )
    assert METRICS["output_tok_per_s"].read(timeline) == pytest.approx(4 / 0.3)
    assert METRICS["prefill_tok_per_s"].read(timeline) == pytest.approx(40 / 0.2)


def test_nothing_yet_is_unknown_not_zero():
    for events in ([], [Request(0.0, 0, 3)]):
        assert all(metric.read(line(*events)) is None for metric in METRICS.values())
    one = line(Request(0.0, 0, 3), Step(0.1, (0,), ((1,),)))
    assert METRICS["tpot_ms"].read(one) is None


def test_p99_needs_a_hundred_samples():
    assert percentile(range(99), 0.99) is None
    assert percentile(range(101), 0.99) == pytest.approx(99)
    assert percentile([], 0.5) is None
    assert percentile([1, 2, 3, 4], 0.5) == pytest.approx(2.5)


def test_phases_are_spans():
    spans = line(Phase(1.0, "load"), Phase(3.0, "compile"), Phase(3.5, "compile"), Phase(7.0, "warmup")).spans()
    assert spans == {"load": 2.0, "compile": 4.0, "warmup": 0.0}
