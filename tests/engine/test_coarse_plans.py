"""Lanes whose native step drafts for itself: what is planned, refused, forecast and exported."""

import pytest
import torch

from engine.code.script import script
from engine.code.vllm import vllm
from engine.kernels.pages import Pages
from engine.kernels.weights import Matrix
from engine.measure.ceiling import guesser, planned, prefill
from engine.measure.fit import fit
from engine.measure.formats import formats
from engine.measure.machine import machine
from engine.models.architecture import known
from engine.plan import Plan
from engine.refusal import Refusal
from engine.spec import Lane, Workload, plan_for

NATIVE = {"native_step": {}, "draft_model": {"model": "self"}}


def lane(opts=NATIVE, model="smollm2-135m", dtype="float32", backend="transformers") -> Plan:
    opts = {"precision": {"dtype": dtype}, **opts}
    return plan_for(Lane(backend=backend, device="cpu", opts=opts), model, machine())


def test_a_trained_draft_is_packed_as_its_file_holds_it():
    """In 8 bits with a scale a row: the numbers are the file's, whatever the model's own weights are kept in."""
    for more in ({}, {"packed_weights": {"kind": "int4"}}):
        made = lane({"native_step": {}, "draft_model": {"model": "trained"}, **more})
        assert made.draft["packed"]["kind"] == made.expected["draft_format"] == "int8"
        _, how = guesser(made, known("smollm2-135m"), formats(made, known("smollm2-135m")))
        assert how.weight == 1.0
    weight = torch.randint(-127, 128, (64, 64)).float()
    weight[:, 0] = 127
    whole, scale, _ = Matrix(weight * 0.01, "int8", Pages()).tensors
    assert torch.equal(whole.transpose(1, 2).reshape(64, 64).float(), weight)
    torch.testing.assert_close(scale, torch.full((64,), 0.01))


def drafting(**knobs) -> dict:
    return {"native_step": {}, "draft_model": {"model": "self", **knobs}}


@pytest.mark.parametrize(
    "opts, kind",
    [
        (drafting(), "int8"),
        ({"native_step": {}, "draft_model": {}}, "int8"),
        (drafting(format="int4"), "int4"),
        ({**drafting(), "packed_weights": {}}, "int4"),
    ],
)
def test_a_native_lane_packs_its_own_weights_once_more(opts, kind):
    for dtype in ("float32", "bfloat16"):
        made = lane(opts, dtype=dtype)
        assert made.draft["packed"]["kind"] == made.expected["draft_format"] == kind
        assert not made.draft["quantization"]


@pytest.mark.parametrize(
    "opts, words",
    [
        (drafting(format="nf4"), "packed in int8 or int4, not nf4"),
        (drafting(format="bfloat16"), "packed in int8 or int4, not bfloat16"),
        ({**drafting(format="int8"), "packed_weights": {"kind": "int8"}}, "in int8 already"),
        ({**drafting(), "packed_weights": {"kind": "int4"}}, "in int4 already"),
        ({**drafting(format="int8"), "packed_weights": {"kind": "int4"}}, "in int4 already"),
        ({"draft_model": {"model": "self", "format": "int4"}}, "switch the native step"),
        ({"draft_model": {"model": "trained", "format": "int4"}, "native_step": {}}, "in int8, as its file"),
        ({**drafting(), "early_exit": {}}, "one kind of guessing"),
    ],
)
def test_what_cannot_be_packed_is_refused_with_a_sentence(opts, words):
    with pytest.raises(Refusal, match=words):
        lane(opts)


def test_the_forecast_counts_the_second_packing_and_no_second_cache():
    shape = known("smollm2-135m")
    with_it, without = lane(), lane({"native_step": {}})
    use = planned(with_it, 100, 28, 1)
    more, less = (fit(plan, shape, use, None) for plan in (with_it, without))
    assert more.weights - less.weights == pytest.approx(134.5e6, rel=0.01)
    assert more.kv == less.kv
    own, how = guesser(with_it, shape, formats(with_it, shape))
    assert (own.layers, how.weight, how.arithmetic) == (30, 1.0, "int8")
    reading = [prefill(plan, shape, formats(plan, shape), use) for plan in (with_it, without)]
    assert reading[0] == reading[1], "the prompt is read once"


def test_an_export_says_what_it_cannot_have():
    workload = Workload(prompts=("Say it.",))
    for form in (script, vllm):
        assert any("int8" in sentence for sentence in form(lane(), workload).beyond)
