"""The figures that the rules need are there after a real run of the embedded model."""

import pytest

from engine.event import Failed
from engine.measure.machine import machine
from engine.measure.result import result
from engine.measure.why.evidence import Pair, Side
from engine.measure.why.guessing import acceptance
from engine.run.pool import Pool
from engine.run.runner import Run
from engine.spec import Experiment

OPTS = {
    "plain": {},
    "guessing": {"prompt_lookup": {}},
    "int8": {"bitsandbytes": {"kind": "int8"}},
    "static": {"kv_cache": {"kind": "static"}},
}


@pytest.fixture(scope="module")
def lanes():
    """One round of four lanes that write the beginning of a poem."""
    work = {"prompts": "Write a short poem about a lamp, a cat and the sea.", "max_new_tokens": 24}
    data = {"rounds": 1, "workload": work, "lanes": {name: {"opts": opts} for name, opts in OPTS.items()}}
    experiment, pool = Experiment.read(data), Pool()
    try:
        records = list(Run(experiment, pool).records())
    finally:
        pool.close()
    assert not any(isinstance(record.event, Failed) for record in records)
    return {lane["name"]: lane for lane in result(experiment, machine().to_dict(), records)["lanes"]}


@pytest.mark.model
def test_guessing_is_weighed_against_what_its_steps_cost(lanes):
    """Whatever the clock says, and however busy the machine: tokens of a step are weighed against its time."""
    found = acceptance(Pair(Side(lanes["guessing"]), Side(lanes["plain"]))).evidence
    assert found["tokens_per_step"] >= 1 and found["draft_ms"] > 0
    assert found["draft_ms"] < found["step_ms"], "looking up is cheaper than a step"


@pytest.mark.model
def test_a_step_is_profiled_with_its_products_and_what_int8_adds(lanes):
    names = {
        name: {row["name"]: row["count"] for row in lane["effective"]["launches"]["top"]}
        for name, lane in lanes.items()
    }
    assert names["plain"]["linear"] == 211, "seven in each of 30 layers, and the head"
    assert names["int8"]["int8_vectorwise_quant"] == 210
    assert lanes["int8"]["effective"]["outlier_threshold"] == 6.0


@pytest.mark.model
def test_the_workload_is_described_by_its_own_requests(lanes):
    for lane in lanes.values():
        found = lane["occupancy"]
        assert found["requests"] == 1 and found["output_tokens"] == 24 and found["prompt_tokens"] > 20
        assert found["padding"] is None and found["idle"] is None, "one request shares no batch"
