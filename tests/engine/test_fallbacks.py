"""Silent fallbacks, planted one by one: what was asked for and did not run is found in what really ran (M11)."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from engine.decode import attention
from engine.decode.compiled import compile_step, mode_of
from engine.measure.machine import machine
from engine.models import effective
from engine.optimizations import Optimization
from engine.plan import Plan
from engine.registry import optimizations
from engine.spec import Lane, Workload, plan_for
from tests.engine.contract import SESSIONS, Case, configurations, ids
from tests.engine.plants import IN_GENERATE, PLANTS, compiled_as, whole
from tests.engine.tiny_models import tiny

PROMPTS = ("The lamp is lit, and so it is. The lamp", "The lamp is lit, and so be it. The lamp")
UNREAD = {"batching"}
"""What can be seen in a run's own steps, and needs no reading back."""
PLAIN_MACHINE = replace(machine(), instructions=())
"""One on which bitsandbytes is trusted to heed what this processor's path ignores."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Any]:
    """One thread, and widths that every kind of quantization takes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tiny("llama", tmp_path_factory.mktemp("fallbacks"), intermediate_size=128)
    torch.set_num_threads(before)


def ran(folder: Any, opts: dict[str, Any], backend: str = "transformers", one: Any = None) -> list[str]:
    """Run a lane, in a session that may have run others; where what ran is not what was asked for, a sentence each."""
    lane = Lane(backend=backend, opts=opts)
    plan = plan_for(lane, str(folder), PLAIN_MACHINE)
    one, workload = one or SESSIONS[plan.backend](), Workload(prompts=PROMPTS, max_new_tokens=6, chat=False)
    one.recheck = lambda shape: plan_for(lane, str(folder), PLAIN_MACHINE, shape)
    one.prepare(plan, workload, lambda event: None)
    one.run(plan, workload, lambda event: None)
    return plan.unmet(one.effective())


ELSEWHERE = {"graph", "kernels", "offload", "tensor_parallel", "replicas", "quantization.group"}
"""What needs a GPU or several processes: planted in what a lane without them reports, or in weights made by hand."""


@pytest.mark.parametrize(("expected", "instead", "opts", "plant"), PLANTS, ids=[one[1] for one in PLANTS])
def test_a_planted_fallback_is_found(expected, instead, opts, plant, folder, monkeypatch):
    if "torch_compile" in opts:
        compiled_as(whole)(monkeypatch)
    sound = [] if expected in ("double_quantization", "attention") else ran(folder, opts)
    assert sound == [], "without the plant nothing may be withdrawn"
    plant(monkeypatch)
    torch._dynamo.reset()
    found = ran(folder, opts)
    assert any(sentence.startswith(f"Asked for {re.sub('[_.]', ' ', expected)} ") for sentence in found), found


@pytest.mark.parametrize("backend", ["transformers", "generate"])
def test_a_warm_session_reports_the_lane_that_it_is_lent_to(backend, folder):
    """What the lane before has left behind is neither taken for this one's nor held against it."""
    asked = [{"continuous_batching": knobs} for knobs in ({"slots": 1}, {"chunk": 16}, {"slots": 5})]
    asked += [{"early_exit": {"layers": 1}}, {}]
    if backend == "transformers":
        asked += [{"kv_quant": {"size": size}} for size in (16, 32)]
    one = SESSIONS[backend]()
    assert [ran(folder, opts, backend, one) for opts in asked] == [[]] * len(asked)


@pytest.mark.parametrize("said", IN_GENERATE)
def test_what_generate_was_not_told_is_found(said, folder, monkeypatch):
    opts, plant = IN_GENERATE[said]
    plant(monkeypatch)
    assert [sentence for sentence in ran(folder, opts, "generate") if sentence.startswith(f"Asked for {said}, but ")]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("asked", ["default", "max-autotune"])
def test_the_compilers_own_settings_say_how_it_looks_for_kernels(asked, device, monkeypatch):
    """Also where torch leaves a first function of its own out of compiling on the way."""
    torch._dynamo.reset()
    make = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *a, **k: torch._dynamo.disable(len) and make(*a, **k))
    step = compile_step(torch.nn.Linear(2, 2), Plan("transformers", "m", device=device, compile=asked))
    assert mode_of(step) == asked
    assert mode_of(torch.nn.Linear(2, 2).forward) is None


def applied(case: Case, device: str = "cuda") -> Plan:
    """A plan edited by one optimization alone, on a machine that has everything."""
    name, knobs = case
    plan = Plan("transformers", "m", device=device, cores=8, gpus=8)
    opt: Optimization = optimizations()[name](**knobs)
    opt.apply(plan)
    opt.settle(plan)
    return plan


@pytest.fixture(scope="module")
def plain(folder) -> dict[str, Any]:
    """What a lane with nothing on reports."""
    one, lane = SESSIONS["transformers"](), Lane()
    plan = plan_for(lane, str(folder), machine())
    workload = Workload(prompts=PROMPTS, max_new_tokens=6, chat=False)
    one.prepare(plan, workload, lambda event: None)
    one.run(plan, workload, lambda event: None)
    return one.effective()


@pytest.mark.parametrize("case", configurations(), ids=ids)
def test_an_optimization_that_is_ignored_altogether_is_found(case, plain):
    """Every configuration in the registry, on a lane that ran as if nothing had been switched on."""
    name, knobs = case
    if optimizations()[name].always and not knobs:
        return  # its defaults are what the plain lane runs
    if ways := optimizations()[name](**knobs).ways("cuda"):
        assert {part for way in ways for part in way} <= set(optimizations()), "what takes its place is read back"
        return
    plan = applied(case)
    if name in UNREAD:
        assert plan.expected == {}
        return
    assert plan.expected, f"{name} says nothing of what must be read back: set plan.expected"
    same = {"kv": "dynamic", **{name: plain[name] for name in ("attention", "sdpa", "dtype")}}
    if plan.expected.items() <= same.items():
        return  # it asks for what a plain lane is
    assert plan.unmet(plain), case


def test_everything_that_is_expected_has_a_planted_case():
    """A new optimization brings a planted fallback of its own, or this fails."""
    expected = {
        name for case in configurations() for device in ("cpu", "cuda") for name in applied(case, device).expected
    }
    assert expected == {one[0] for one in PLANTS} | ELSEWHERE


def test_layers_that_disagree_are_told_as_they_are():
    assert effective._shared([6.0, 6.0]) == 6.0
    assert effective._shared([6.0, 0.0]) == "6.0 and 0.0"
    assert effective._shared([]) is None


def test_the_profiler_names_the_operator_that_really_ran():
    assert attention.found(["aten::_scaled_dot_product_attention_math"]) == "math"
