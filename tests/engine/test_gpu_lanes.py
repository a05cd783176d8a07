"""Lanes planned for a machine that has GPUs, by its record alone: what is refused, and what a label will stand on."""

from dataclasses import replace
from typing import Any

import pytest

from engine.decode.attention import found
from engine.decode.modules import ModuleSession
from engine.measure.machine import Gpu, machine
from engine.optimizations import draft_model
from engine.plan import Plan
from engine.refusal import Refusal
from engine.spec import Lane, Workload, plan_for

CARD = Gpu("NVIDIA H200", 141 * 2**30, "9.0", "580")
ONE = replace(machine(), gpus=(CARD,), cores=16)
TWO = replace(ONE, gpus=(CARD, CARD))


def planned(opts: dict[str, Any], on: Any = ONE, model: str = "smollm2-135m", **lane: Any) -> Plan:
    return plan_for(Lane(opts=opts, **lane), model, on)


def refused(opts: dict[str, Any], on: Any = ONE, model: str = "smollm2-135m", **lane: Any) -> str:
    with pytest.raises(Refusal) as refusal:
        planned(opts, on, model, **lane)
    return refusal.value.why


@pytest.mark.parametrize("backend", ["transformers", "generate"])
def test_replicas_and_ranks_need_a_gpu_each(backend):
    assert "2 workers need 2 GPUs" in refused({"replicas": {}}, backend=backend)
    assert planned({"replicas": {}}, TWO, backend=backend).replicas == 2
    assert planned({"replicas": {}}, backend=backend, device="cpu").replicas == 2, "on its processor it has cores"
    if backend == "transformers":
        assert "2 ranks need 2 GPUs" in refused({"tensor_parallel": {}}, model="qwen3-0.6b")
        assert planned({"tensor_parallel": {}}, TWO, model="qwen3-0.6b").tensor_parallel == 2


@pytest.mark.parametrize("opts", [
    {"fused_kernels": {}},
    {"fused_kernels": {}, "merged_projections": {}},
    {"fused_kernels": {}, "cuda_graph": {}},
    {"fused_kernels": {}, "kv_cache": {"kind": "static"}},
])  # fmt: skip
def test_fused_kernels_are_labelled_with_the_cache_they_bring(opts):
    """They make a dynamic cache a static one, so no dynamic one may be expected: that took their label on an H200."""
    plan = planned(opts)
    assert plan.cache == "static" and plan.expected.get("kv", "static") == "static"
    ran = {"dtype": "bfloat16", "attention": "sdpa", "kernels": 30, "merged": 60, "graph": 1, "kv": {"kind": "static"}}
    assert plan.unmet(ran) == []
    assert plan.unmet({**ran, "kernels": 0}) == ["Asked for kernels on, but nothing ran."]


def test_memory_efficient_attention_is_a_gpus():
    plan = planned({"attention": {"kernel": "efficient"}})
    assert plan.sdpa == plan.expected["sdpa"] == "efficient"
    assert "on a GPU only" in refused({"attention": {"kernel": "efficient"}}, device="cpu")


@pytest.mark.parametrize(("version", "told"), [("5.17.0", True), ("5.23.1", True), ("5.24.0", False), ("6.0.0", False)])
def test_a_draft_beside_a_sliding_window_needs_a_newer_generate(version, told, monkeypatch):
    monkeypatch.setattr(draft_model, "version", lambda package: version)
    lane = {"draft_model": {"format": "nf4"}}
    if told:
        assert "update transformers" in refused(lane, model="gemma-3-270m", backend="generate")
    else:
        assert planned(lane, model="gemma-3-270m", backend="generate").draft
    assert planned(lane, model="gemma-3-270m").draft, "our own loop counts its window itself"
    assert planned(lane, model="qwen3-0.6b", backend="generate").draft, "no window, nothing to miscount"


def test_a_recorded_or_compiled_step_is_told_by_its_kernels():
    """A replay runs no operators, so a profiler sees the kernels' own names only; a compiled step writes its own."""
    assert found(["fmha_cutlassF_bf16_aligned_64x128_rf_sm80(PyTorchMemEffAttention::Params)"]) == "efficient"
    assert found(["void pytorch_flash::flash_fwd_splitkv_kernel<X>(Y)"]) == "flash"
    assert found(["graph_0_cpp_fused__safe_softmax__to_copy__unsafe_view_bmm_cat_3"]) == "math"
    assert found(["gemv2T_kernel_val", "triton_red_fused_add_3", "cpp_fused__softmax_2"]) is None


def test_a_recording_holds_the_attention_that_it_was_made_with(tiny_model, monkeypatch):
    """Simulated: the step is no graph here, and what the profiler hears of a replay is nothing, as on a GPU."""
    plan = replace(plan_for(Lane(), str(tiny_model), replace(machine(), gpus=())), graph=True, cache="static")
    monkeypatch.setattr(ModuleSession, "_again", lambda *_: lambda: None)
    session, workload = ModuleSession(), Workload(prompts=("The lamp",), max_new_tokens=4)
    for kernel in ("math", "flash"):
        lane = replace(plan, sdpa=kernel)
        session.prepare(lane, workload, lambda event: None)
        session.run(lane, workload, lambda event: None)
        assert session.effective()["sdpa"] == kernel
    assert len(session.graphs) == 2, "the second lane replays no recording of the first"


def test_a_compiled_step_is_not_lent_to_a_lane_with_another_attention():
    leases = {planned({"torch_compile": {}, "attention": {"kernel": kernel}}).lease() for kernel in ("sdpa", "math")}
    assert len(leases) == 2
    assert planned({"attention": {"kernel": "math"}}).lease() == planned({}).lease(), "loaded modules are lent to both"
