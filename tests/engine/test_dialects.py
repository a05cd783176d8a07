"""The translator: each benchmark's own formula on a known timetable, and speculation counted by token ids."""

import pytest

from engine.event import Finished, Request, Step
from engine.measure.dialects import DIALECTS, translate
from engine.measure.metrics import METRICS
from engine.measure.timeline import Terms, Timeline


def turn(*events, terms: Terms = Terms()) -> Timeline:
    line = Timeline(terms)
    for event in (*events, Finished(9.0)):
        line.see(event)
    return line


def guessing() -> Timeline:
    """First token after 0.4 s, then two steps of 0.3 s with three tokens each: seven tokens in one second."""
    return turn(
        Request(0.0, 0, 10),
        Step(0.4, (0,), ((1,),)),
        Step(0.7, (0,), ((2, 3, 4),), drafted=3, accepted=2),
        Step(1.0, (0,), ((5, 6, 7),), drafted=3, accepted=2),
    )


def said(name: str, *lines: Timeline) -> dict[str, float]:
    return {row["name"]: row["values"][0] for row in translate(DIALECTS[name], [lines])}


def test_a_speculative_step_is_counted_by_its_token_ids_and_not_as_a_chunk():
    line = guessing()
    assert METRICS["tpot_ms"].read(line) == pytest.approx(100), "0.6 s for six tokens"
    assert METRICS["itl_p50_ms"].read(line) == pytest.approx(100), "a step's tokens share its time"
    assert METRICS["output_tok_per_s"].read(line) == pytest.approx(7)
    assert METRICS["decode_tok_per_s"].read(line) == pytest.approx(10)
    theirs = said("vllm", line)
    assert theirs["Mean ITL"] == pytest.approx(300), "vLLM's gap is between chunks"
    assert theirs["Mean TPOT (excl. 1st token)"] == pytest.approx(100)
    assert said("aiperf", line)["Inter Chunk Latency (avg)"] == pytest.approx(300)


def test_vllm_counts_only_steps_with_a_draft_in_its_acceptance_length():
    """Two steps with guesses give three tokens each, and one without gives one."""
    line = guessing()
    line.see(Step(1.1, (0,), ((8,),)))
    theirs = said("vllm", line)
    assert theirs["Acceptance length"] == pytest.approx(3) and theirs["Acceptance rate"] == pytest.approx(100 * 4 / 6)
    assert METRICS["tokens_per_step"].read(line) == pytest.approx(7 / 3)


def test_guidellm_counts_the_first_token_into_its_time_per_token():
    theirs = said("guidellm", guessing())
    assert theirs["Time per output token (median)"] == pytest.approx(1000 / 7)
    assert theirs["Inter-token latency (median)"] == pytest.approx(100)
    assert theirs["Request latency (median)"] == pytest.approx(1.0)


def test_aiperf_calls_our_time_per_token_inter_token_latency():
    theirs = said("aiperf", guessing())
    assert theirs["Inter Token Latency (avg)"] == pytest.approx(METRICS["tpot_ms"].read(guessing()))
    assert theirs["Output Token Throughput Per User (avg)"] == pytest.approx(10)


def test_mlperf_counts_from_the_scheduled_arrival():
    """Scheduled at 1.0, in the engine at 1.5, first token at 1.6: all 0.6 s count."""
    late = turn(Request(1.0, 0, 4), Step(1.6, (0,), ((1,),)), Step(1.8, (0,), ((2,),)), terms=Terms(open_loop=True))
    assert said("mlperf", late)["Mean First Token latency"] == pytest.approx(600)
    assert said("mlperf", late)["Mean latency"] == pytest.approx(800)


def test_pooled_gaps_weigh_long_requests_more_than_a_mean_over_requests():
    """One request of 11 tokens at 10 ms, one of 2 tokens at 100 ms."""
    long = [Step(0.1 + 0.01 * place, (0,), ((place,),)) for place in range(11)]
    short = [Step(1.1, (1,), ((0,),)), Step(1.2, (1,), ((1,),))]
    theirs = said("vllm", turn(Request(0.0, 0, 3), *long, Request(1.0, 1, 3), *short))
    assert theirs["Mean TPOT (excl. 1st token)"] == pytest.approx(55)
    assert theirs["Mean ITL"] == pytest.approx((10 * 10 + 100) / 11)
    assert "P99 ITL" not in theirs, "a 99th percentile from eleven gaps is none"


def test_values_are_medians_over_rounds_and_unknown_is_none():
    fast, slow = (turn(Request(0.0, 0, 3), Step(first, (0,), ((1,),))) for first in (0.1, 0.3))
    rows = translate(DIALECTS["vllm"], [[fast, slow], []])
    first = next(row for row in rows if row["name"] == "Mean TTFT")
    assert first["values"] == [pytest.approx(200), None]
    assert not any("TPOT" in row["name"] for row in rows), "one token has no time between tokens"


@pytest.mark.parametrize("name", DIALECTS)
def test_every_term_names_one_of_our_metrics_and_a_formula(name):
    dialect = DIALECTS[name]
    assert dialect.source and len({term.name for term in dialect.terms}) == len(dialect.terms)
    for term in dialect.terms:
        assert term.ours is None or term.ours in METRICS, term.name
        assert term.definition.endswith(".")


def test_decode_speed_of_requests_that_share_steps_counts_together():
    steps = [Step(0.1 * (place + 1), (0, 1), ((place,), (place,))) for place in range(5)]
    line = turn(Request(0.0, 0, 3), Request(0.0, 1, 3), *steps)
    assert METRICS["decode_tok_per_s"].read(line) == pytest.approx(20)
    after = [Step(1.0 + 0.1 * (place + 1), (2,), ((place,),)) for place in range(5)]
    apart = turn(Request(0.0, 0, 3), Request(0.0, 1, 3), *steps, Request(1.0, 2, 3), *after)
    assert METRICS["decode_tok_per_s"].read(apart) == pytest.approx(12 / 0.8), "what lies between does not count"
