"""The memory's rules: what a share of its speed means beside the bytes, and what is proposed to try next."""

import pytest

from engine.measure.why import traffic
from engine.measure.why.evidence import Side
from tests.engine.test_why_rules import ceiling, lane, pair, profile


def one_call(share: float, **parts) -> str:
    """What is said of a step that reads half the bytes, beside one that reaches a quarter of the memory's speed."""
    launched = {"ms": 10.0, "effective__launches": profile(1, **{"whole step": 1.0}), **parts}
    plain = lane("A", ceiling=ceiling(4e8, 0.25), effective__launches=profile(1097, mm=0.9))
    return traffic.bytes_read(
        pair(lane("B", ceiling=ceiling(2e8, share), **launched), plain, tpot_ms="faster")
    ).sentence


def test_a_step_that_reads_less_and_comes_nearer_to_the_limit_gains_by_both():
    nearer = "(80% of what the memory allows, against 25%: coming nearer to this limit gains "
    assert f"{nearer}more than the bytes do, with 1 launch a step, not 1,097)." in one_call(0.8)
    assert "against 25%: coming nearer to this limit gains as well, with 1 launch" in one_call(0.4)
    assert "against 25%)." in one_call(0.3), "a little nearer is no cause of its own"
    assert "more than the bytes do)." in one_call(0.8, effective__launches=profile(1097, mm=0.9))


@pytest.mark.parametrize(
    ("native", "kind", "first"),
    [
        (False, None, {"lane.opts.precision": {"dtype": "bfloat16"}}),
        (True, None, {"lane.opts.packed_weights": {"kind": "int8"}}),
        (True, "int8", {"lane.opts.packed_weights": {"kind": "int4"}}),
        (True, "int4", None),
    ],
)
def test_where_reading_is_the_limit_what_reads_less_beside_this_step_is_next(native, kind, first):
    mine = lane("A", ceiling=ceiling(4e8, 0.9), effective__native=native, effective__quantization={"kind": kind})
    assert next(iter(traffic.limit(Side(mine)).attempts), None) == first


def test_what_starts_fewest_operators_is_tried_before_what_starts_fewer():
    slow = lane("A", ceiling=ceiling(4e8, 0.2), effective__launches=profile(1000, mul=0.5))
    assert next(iter(traffic.limit(Side(slow)).attempts)) == {"lane.opts.native_step": {}}


def test_a_step_that_is_one_call_does_not_wait_for_operators_to_be_started():
    mine = lane("A", ceiling=ceiling(4e8, 0.2), effective__launches=profile(1, **{"whole step": 1.0}))
    assert traffic.limit(Side(mine)).sentence.endswith("its own loop takes it.")
