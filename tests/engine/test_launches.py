"""What a step launches is counted as the profiler saw it, and fusing makes it less."""

import pytest
import torch

from engine.decode.compiled import compile_step
from engine.decode.fuse import merge_projections
from engine.decode.launches import TOP, _short, launches
from engine.decode.stepper import Preallocated, keep_all
from engine.plan import Plan
from tests.engine.tiny import tiny

CPU = torch.device("cpu")


def counted(found: dict) -> dict[str, int]:
    return {row["name"]: row["count"] for row in found["top"]}


@torch.inference_mode()
def of_a_step(model, compiled=None) -> dict:
    stepper = Preallocated(model, [0], keep_all(model.config, 64), compiled)
    stepper.prefill(torch.ones(1, 4, dtype=torch.long))
    token = torch.ones(1, 1, dtype=torch.long)
    stepper.step(token)
    return launches(lambda: stepper.step(token), CPU)


def test_operators_that_work_are_counted_and_views_are_not():
    x = torch.randn(4, 4)
    found = launches(lambda: (x @ x + 1).t()[:3].unsqueeze(0).neg(), CPU)
    assert (found["unit"], found["total"], found["calls"]) == ("operators", 3, 3)
    assert counted(found) == {"mm": 1, "add": 1, "neg": 1}
    assert sum(row["share"] for row in found["top"]) == pytest.approx(1, abs=0.01)
    assert launches(lambda: x[:1].view(2, 2).unsqueeze(0), CPU)["total"] == 0


def test_merged_projections_launch_three_products_less_in_each_layer():
    model = tiny("llama")
    before = of_a_step(model)
    merge_projections(model)
    after = of_a_step(model)
    assert before["total"] - after["total"] == 2 * 3
    assert counted(before)["linear"] - counted(after)["linear"] == 2 * 3
    assert len(before["top"]) <= TOP


def test_a_compiled_step_launches_fewer_and_names_what_it_fused():
    model = tiny("llama")
    before = of_a_step(model)
    after = of_a_step(model, compile_step(model, Plan("transformers", "m", compile="default")))
    assert after["total"] < before["total"] / 2
    assert any(name.startswith("fused ") and "rsqrt" in name for name in counted(after))


def test_names_are_short_enough_to_read():
    kernel = (
        "void at::native::elementwise_kernel<128, at::native::BinaryFunctor<float, at::native::MulFunctor<float>>>(x)"
    )
    assert _short(kernel) == "elementwise_kernel Mul"
    assert _short("void at::native::(anonymous namespace)::CatArrayBatchedCopy<x>(y)") == "CatArrayBatchedCopy"
    assert _short("triton_red_fused_add_mean_3") == "fused add mean"
    assert _short("graph_0_cpp_fused_add_copy__11") == "fused add copy"
    assert _short("void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<X>, Y>(int)") == (
        "vectorized_elementwise_kernel add"
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_replayed_graph_is_one_call_of_many_kernels():
    x = torch.randn(64, 64, device="cuda")
    graph = torch.cuda.CUDAGraph()
    (x @ x).relu()
    with torch.cuda.graph(graph):
        (x @ x).relu()
    eager = launches(lambda: (x @ x).relu(), x.device)
    replayed = launches(graph.replay, x.device)
    assert eager["unit"] == "kernels" and eager["total"] == eager["calls"] == 2
    assert (replayed["total"], replayed["calls"]) == (2, 1)
