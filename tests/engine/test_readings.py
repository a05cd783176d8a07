"""Under which names figures of quality are kept: a lane never gets another lane's."""

import pytest

from engine.measure.machine import machine
from engine.plan import LOSS
from engine.run.readings import NUMBERS, key
from engine.spec import Lane, plan_for

PLAIN = plan_for(Lane(), "smollm2-135m", machine())
NATIVE = {"native_step": {}}
LANES = [
    {"precision": {"dtype": "bfloat16"}},
    NATIVE,
    {**NATIVE, "packed_weights": {"kind": "int8"}},
    {**NATIVE, "packed_weights": {"kind": "int8", "inputs": "8"}},
    {**NATIVE, "packed_weights": {"kind": "int4"}},
    {"kv_quant": {"keys": 8}},
    {"kv_quant": {"keys": 4}},
    {"torch_compile": {}},
]


def test_every_loss_is_part_of_the_name():
    assert set(LOSS) <= set(NUMBERS)


@pytest.mark.skipif(not (machine().compiler or machine().packages.get("numba")), reason="nothing can be compiled here")
def test_lanes_that_compute_otherwise_have_other_names():
    plans = [plan_for(Lane(opts=opts), "smollm2-135m", machine()) for opts in LANES]
    assert len({key(plan, PLAIN, "weights", "text") for plan in (PLAIN, *plans)}) == len(LANES) + 1
