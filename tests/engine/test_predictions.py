"""On the embedded model: a race measures the machine first, its lanes have ceilings, and memory is as predicted."""

import pytest

from engine.event import Phase
from engine.measure.machine import machine
from engine.measure.result import result
from engine.measure.roofs import measured
from engine.run.pool import Pool
from engine.run.runner import Run
from engine.spec import Experiment

NF4 = {"bitsandbytes": {"kind": "nf4"}, "precision": {"dtype": "bfloat16"}}
LANES = {"A": {"device": "cpu"}, "B": {"device": "cpu", "opts": NF4}}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The records of a race in a home where nothing was measured yet, and its result."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PITLANE_HOME", str(tmp_path_factory.mktemp("unmeasured")))
        pool = Pool()
        work = {"prompts": ["Why is the sky blue?"], "max_new_tokens": 16}
        data = {"rounds": 1, "quality": False, "workload": work, "lanes": LANES}
        experiment = Experiment.read(data)
        records = list(Run(experiment, pool).records())
        pool.close()
        assert measured(machine()) is not None
        yield records, result(experiment, machine().to_dict(), records)


@pytest.mark.model
def test_the_machine_is_measured_before_the_first_lane(ran):
    records, found = ran
    phases = [(record.lane, record.event.name) for record in records if isinstance(record.event, Phase)]
    assert phases[:2] == [(0, "probe"), (1, "probe")]
    assert all("probe_s" not in lane["phases"] for lane in found["lanes"]), "its time is in no lane's account"
    assert found["machine"]["measured"]["devices"]["cpu"]["bandwidth"]


@pytest.mark.model
def test_both_phases_of_both_lanes_have_a_share(ran):
    for lane in ran[1]["lanes"]:
        for one in lane["ceiling"].values():
            assert one["bound"] in ("memory", "compute", "overhead") and one["share"] > 0
            assert one["share"] == pytest.approx(one["predicted_ms"] / one["measured_ms"])
    plain, packed = (lane["ceiling"]["decode"]["bytes"]["weights"] for lane in ran[1]["lanes"])
    assert plain == 4 * (134_515_008 + 576), "the head is the embedding, and is read once"
    assert packed == pytest.approx(106_168_320 * 0.5625 + 2 * 28_346_688, rel=0.001)


@pytest.mark.model
def test_memory_is_as_predicted(ran):
    for lane in ran[1]["lanes"]:
        memory = lane["memory"]
        assert memory["predicted"]["weights"] == pytest.approx(memory["weights_bytes"], rel=0.02)
        assert memory["predicted"]["kv"] == pytest.approx(memory["kv_bytes"], rel=0.02)
        assert sum(memory["predicted"].values()) == pytest.approx(memory["peak_bytes"], rel=0.1)
