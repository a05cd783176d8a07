"""Specs refuse what is wrong in one sentence, and say what there is."""

import math

import pytest

from engine.address import assign
from engine.measure.machine import machine
from engine.measure.metrics import METRICS
from engine.plan import LEASE, Plan
from engine.presets import lab_presets, preset, presets
from engine.refusal import Refusal
from engine.registry import backends, labs, optimizations
from engine.spec import Experiment, Lane, plan_for

BASE = {"workload": {"prompts": ["hello"]}, "lanes": {"A": {}, "B": {}}}


def changed(**parts) -> dict:
    return {**BASE, **parts}


def lane(**parts) -> dict:
    return changed(lanes={"A": parts})


def workload(**parts) -> dict:
    return changed(workload={"prompts": ["hello"], **parts})


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (workload(prompts=["  "]), "A prompt is empty"),
        (workload(prompts=[]), "prompts"),
        (workload(prompts=["x" * 200_001]), "longer than"),
        (workload(max_new_tokens=0), "greater than or equal to 1"),
        (workload(max_new_tokens=-3), "greater than or equal to 1"),
        (workload(max_new_tokens=2.5), "integer"),
        (workload(max_new_tokens=True), "integer"),
        (workload(max_new_tokens="12"), "integer"),
        (workload(max_new_tokens=math.nan), "integer"),
        (workload(temperature=math.nan), "finite"),
        (workload(temperature=math.inf), "finite"),
        (workload(colour="red"), "there are prompts"),
        (changed(rounds=0), "rounds"),
        (changed(rounds=65), "rounds"),
        (changed(hobby=1), "there are title"),
        (changed(model=""), "model"),
        (changed(lanes={}), "lanes"),
        (changed(lanes={name: {} for name in "ABCDE"}), "at most 4"),
        (changed(lanes={"A.B": {}}), "lane name"),
        (lane(backend="vroom"), "there are generate, simulated, transformers"),
        (lane(backend={"name": "simulated", "tpot_ms": -1}), "tpot_ms"),
        (lane(backend={"name": "simulated", "pace": 1}), "it has ttft_ms"),
        (lane(opts={"quantise": {}}), "there are precision, bitsandbytes"),
        (lane(opts={"kv_cache": {"kind": "huge"}}), "'off', 'dynamic' or 'static'"),
        (lane(opts={"prompt_lookup": {"guesses": 99}}), "less than or equal to 16"),
        (lane(opts={"prompt_lookup": {"guess": 3}}), "it has guesses, adaptive, ngram"),
        (lane(opts={"prompt_lookup": 3}), "a table of knobs"),
        (lane(opts=[]), "opts is a table"),
        (lane(device="tpu"), "device"),
        ("nonsense", "dictionary"),
    ],
)
def test_bad_input_is_one_sentence(data, says):
    with pytest.raises(Refusal) as refused:
        Experiment.read(data)
    assert says in refused.value.why
    assert "\n" not in refused.value.why


def test_an_experiment_is_the_same_after_json():
    for name, experiment in presets().items():
        assert Experiment.read(experiment.to_dict()) == experiment, name


def test_defaults_of_an_always_on_optimization_are_the_same_as_leaving_it_out():
    assert Lane(opts={"kv_cache": {"kind": "dynamic"}}) == Lane()
    assert Lane(opts={"prompt_lookup": False, "batching": None}) == Lane()


def test_every_preset_asks_a_question_and_can_run_here():
    """A lane may only be refused for the GPU that this machine lacks, or for a library that is an extra."""
    assert len(presets()) >= 14
    for name, experiment in presets().items():
        assert experiment.title.endswith(("?", ")")) and experiment.why, name
        refused = []
        for part in experiment.lanes.values():
            try:
                plan_for(part, experiment.model, machine())
            except Refusal as refusal:
                refused.append(refusal.why)
        assert len(refused) < len(experiment.lanes), name
        assert all("GPU" in why or "not installed" in why for why in refused), (name, refused)
        if experiment.expect:
            assert {experiment.expect.lane, experiment.expect.over} <= set(experiment.lanes)
            assert experiment.expect.metric in METRICS, name


def test_labs_answer_questions_too():
    assert {one.lab.name() for one in lab_presets().values()} == set(labs())
    assert all(one.title.endswith("?") and one.why for one in lab_presets().values())


def test_an_unknown_preset_lists_what_there_is(tmp_path):
    with pytest.raises(Refusal, match="does-16-bit-pay"):
        preset("does-32-bit-pay")
    broken = tmp_path / "broken.toml"
    broken.write_text("lanes = [")
    with pytest.raises(Refusal, match="not a TOML file"):
        preset(str(broken))


@pytest.mark.parametrize(
    ("address", "path", "value"),
    [
        ("rounds=3", ("rounds",), 3),
        ("model=qwen3-0.6b", ("model",), "qwen3-0.6b"),
        ('workload.prompts=["a","b"]', ("workload", "prompts"), ["a", "b"]),
        ("lanes.B.opts.kv_cache.kind=static", ("lanes", "B", "opts", "kv_cache", "kind"), "static"),
        ("lanes.A.backend.tpot_ms=5", ("lanes", "A", "backend"), {"name": "transformers", "tpot_ms": 5}),
    ],
)
def test_an_address_reaches_its_place(address, path, value):
    data = assign(Experiment.read(BASE).to_dict(), [address])
    for key in path:
        data = data[key]
    assert data == value


def test_lane_reaches_all_lanes():
    data = assign(Experiment.read(BASE).to_dict(), ["lane.opts.precision.dtype=bfloat16"])
    read = Experiment.read(data)
    assert all(lane.opts["precision"].dtype == "bfloat16" for lane in read.lanes.values())


@pytest.mark.parametrize("address", ["rounds", "wheels=4", "lanes.Z.device=cpu"])
def test_a_wrong_address_is_refused(address):
    with pytest.raises(Refusal):
        assign(Experiment.read(BASE).to_dict(), [address])


@pytest.mark.parametrize(
    ("opts", "says"),
    [
        ({"prompt_lookup": {}, "batching": {}}, "one request at a time"),
        ({"prompt_lookup": {}, "kv_cache": {"kind": "off"}}, "KV cache"),
        ({"torch_compile": {}, "kv_cache": {"kind": "off"}}, "fixed shapes"),
        ({"torch_compile": {}, "bitsandbytes": {"kind": "int8"}}, "outliers"),
    ],
)
def test_what_cannot_go_together_is_refused_before_anything_starts(opts, says):
    with pytest.raises(Refusal, match=says):
        plan_for(Lane(opts=opts), "smollm2-135m", machine())


def test_a_gpu_lane_without_a_gpu_is_refused():
    if machine().gpus:
        pytest.skip("This machine has a GPU.")
    with pytest.raises(Refusal, match="no NVIDIA GPU"):
        plan_for(Lane(device="cuda"), "smollm2-135m", machine())


def test_an_optimization_that_the_backend_lacks_is_refused():
    lane = Lane(backend="simulated", opts={"prompt_lookup": {}})
    with pytest.raises(Refusal, match="The Simulated backend does not support this: "):
        plan_for(lane, "smollm2-135m", machine())


def test_the_lease_names_fields_of_the_plan():
    assert set(LEASE) <= set(Plan("transformers", "m").to_dict())
    assert set(backends()) == {"generate", "simulated", "transformers"}
    assert optimizations()["kv_cache"].always
