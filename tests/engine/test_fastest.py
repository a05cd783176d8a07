"""The fastest way that loses nothing: the first that this machine, this model and the other switches allow."""

from dataclasses import replace

import pytest

from engine.measure.machine import Gpu, machine
from engine.refusal import Refusal
from engine.spec import Experiment, plan_for

HERE = replace(machine(), gpus=(), compiler="g++")
CUDA = replace(HERE, gpus=(Gpu("H200", 141 * 2**30, "9.0", "580"),))
BARE = replace(HERE, compiler=None, packages={**HERE.packages, "numba": None})
NUMBA = replace(BARE, packages={**BARE.packages, "numba": "0.62"})


def settled(where, model="smollm2-135m", **opts):
    lanes = {"B": {"opts": {"fastest": {}, **opts}}}
    wanted = Experiment.read({"workload": {"prompts": ["a"], "max_new_tokens": 8}, "lanes": lanes})
    return plan_for(wanted.lanes["B"], model, where)


@pytest.mark.parametrize(
    ("where", "opts", "says"),
    [
        (HERE, {}, "Native step with Draft model"),
        (HERE, {"batching": {}}, "Native step"),
        (HERE, {"prompt_lookup": {}}, "Native step"),
        (CUDA, {}, "Native step"),
        (BARE, {}, "Merged projections"),
        (NUMBA, {}, "Native step with Draft model"),
        (HERE, {"kv_window": {}}, "Merged projections"),
        (HERE, {"bitsandbytes": {}}, "the plain loop"),
        (CUDA, {"bitsandbytes": {}}, "CUDA graph"),
    ],
)
def test_the_best_rung_that_can_run_is_taken_and_named(where, opts, says):
    plan = settled(where, **opts)
    assert f"Fastest lossless: {says}." in plan.notes
    assert plan.native == says.startswith("Native step") and plan.merged == (says == "Merged projections")
    assert plan.loss() == settled(where, **{**opts, "fastest": False}).loss(), "nothing more is lost than before"


def test_a_model_without_a_trained_draft_steps_alone_and_the_lanes_own_draft_stays():
    assert "Fastest lossless: Native step." in settled(HERE, "random:qwen3-0.6b").notes
    assert settled(HERE, draft_model={"model": "self", "guesses": 2}).speculation["guesses"] == 2


def test_what_cannot_run_at_all_is_refused_with_its_own_sentence():
    with pytest.raises(Refusal, match="host memory"):
        settled(HERE, kv_offload={})
