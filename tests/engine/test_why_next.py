"""What a rule proposes to try next: what helps most beside what is on."""

import pytest

from engine.measure.why import traffic
from engine.measure.why.evidence import Side
from tests.engine.test_why_rules import ceiling, lane, profile


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
