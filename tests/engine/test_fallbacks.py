"""Silent fallbacks, planted one by one: what was asked for and did not run is found in what really ran (M11)."""

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from engine.decode import attention, caches, continuous, drafting, generate, modules, native, quantized, session
from engine.decode.assisted import OPTIONS
from engine.decode.compiled import compile_step, mode_of
from engine.decode.stepper import Growing
from engine.measure.machine import machine
from engine.models import effective, load, quantize
from engine.optimizations import Optimization
from engine.plan import Plan
from engine.registry import optimizations
from engine.spec import Lane, Workload, plan_for
from tests.engine.contract import SESSIONS, Case, configurations, ids
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


def patched(where: Any, name: str, made: Callable) -> Callable:
    """A sabotage: `made` receives what it takes the place of."""
    return lambda monkeypatch: monkeypatch.setattr(where, name, made(getattr(where, name)))


def loaded_as(**changes: Any) -> Callable:
    """The loader does something else than it is asked to, and says nothing."""
    make = load.load_model
    return patched(
        session.load, "load_model", lambda _: lambda s, f, plan, *rest: make(s, f, replace(plan, **changes), *rest)
    )


def quantized_as(**changes: Any) -> Callable:
    """The quantizer takes other settings."""
    return patched(
        quantize, "quantize", lambda real: lambda model, settings, device: real(model, settings | changes, device)
    )


def compiled_as(make: Callable) -> Callable:
    return patched(modules, "compile_step", lambda _: make)


def in_pieces(model: Any, plan: Plan) -> Any:
    """Compiled, but for a call in the middle that the compiler cannot follow."""

    def forward(*given: Any, **named: Any) -> Any:
        out = model.forward(*given, **named)
        torch._dynamo.graph_break()
        out.logits = out.logits + 0
        return out

    return torch.compile(forward, backend="eager", dynamic=False)


def whole(model: Any, plan: Plan) -> Any:
    """In one piece and in no time, with the settings that the real compiler would have taken."""
    step = torch.compile(model.forward, backend="eager", dynamic=False, fullgraph=True)
    step.get_compiler_config = compile_step(model, plan).get_compiler_config
    return step


NOT_QUANTIZED = patched(quantize, "quantize", lambda _: lambda model, settings, device: None)
ONE_LEFT_OUT = patched(quantize, "names", lambda real: lambda model: real(model)[1:])
FULL_CACHE = patched(
    modules.ModuleSession, "_stepper", lambda _: lambda self, plan, batch: Growing(self.model, batch.pad)
)
AS_MATH = patched(session, "allowed", lambda _: lambda plan: sdpa_kernel(SDPBackend.MATH))
PLAINLY = patched(drafting.Drafting, "turn", lambda _: lambda self, plan, stepper, batch, sampling, length, emit:
                  modules.decode(stepper, batch, sampling, emit))  # fmt: skip
EVERY_OTHER_PLAIN = patched(caches, "_packed", lambda real: lambda layer, knobs, count=itertools.count():
                            layer if next(count) % 2 else real(layer, knobs))  # fmt: skip
UNMERGED = patched(modules, "merge_projections", lambda _: lambda model: None)
UNREAD_PREFIX = patched(modules.Prefixes, "read", lambda _: lambda self, batch, emit, stepper, ids: stepper.read(ids))
ONE_THREAD = patched(torch, "set_num_threads", lambda real: lambda count: real(1))
NO_SLOTS = patched(modules.ModuleSession, "turn", lambda real: lambda self, plan, *rest:
                   real(self, replace(plan, continuous=None), *rest))  # fmt: skip
ONE_BY_ONE = patched(modules.ModuleSession, "serve", lambda real: lambda self, plan, *rest:
                     real(self, replace(plan, continuous=None), *rest))  # fmt: skip
ALL_GUESS = patched(drafting, "Shallow", lambda real: lambda cut, layers, whole, step:
                    real(whole.model, len(whole.cache.layers), whole, step))  # fmt: skip
LARGER_GROUPS = patched(
    caches, "QuantizedLayer", lambda real: lambda keys, values, group: real(keys, values, 2 * group)
)
SMALLER_GROUPS = patched(
    quantized, "Packed", lambda real: lambda bits, group, by_channel: real(bits, group // 2, by_channel)
)
IN_16_BITS = patched(native, "Decoder", lambda real: lambda weights, length, threads, fine, *rest, **named:
                     real(weights, length, threads, True, *rest, **named))  # fmt: skip
ONE_SLOT = patched(continuous, "Slots", lambda real: lambda model, rows, length: real(model, 1, length))
READ_WHOLE = patched(continuous, "Scheduler", lambda real: lambda slots, chunk: real(slots, 1000))
DRAFT_IN_FULL = patched(drafting, "replace", lambda real: lambda plan, **_: plan)

UNPACKED = patched(
    modules.ModuleSession,
    "change",
    lambda change: lambda self, plan, model: change(self, replace(plan, native=False), model),
)
PLANTS: list[tuple[str, str, dict[str, Any], Callable]] = [
    ("dtype", "bfloat16 loaded as float32", {"precision": {"dtype": "bfloat16"}}, loaded_as(dtype="float32")),
    ("attention", "eager loaded as sdpa", {"attention": {"kernel": "eager"}}, loaded_as(attention="sdpa")),
    ("attention", "flex loaded as sdpa", {"attention": {"kernel": "flex"}}, loaded_as(attention="sdpa")),
    ("sdpa", "flash run as math", {"attention": {"kernel": "flash"}}, AS_MATH),
    ("quantization", "fp8 run as float32", {"torchao": {"kind": "fp8-weight-only"}}, NOT_QUANTIZED),
    ("quantization", "fp8 run as bfloat16",
     {"precision": {"dtype": "bfloat16"}, "torchao": {"kind": "fp8-weight-only"}}, NOT_QUANTIZED),
    ("quantization", "dynamic run as weight-only", {"torchao": {"kind": "int8-dynamic"}},
     quantized_as(kind="int8-weight-only")),
    ("quantization", "int8 not quantized", {"bitsandbytes": {"kind": "int8"}}, NOT_QUANTIZED),
    ("quantization", "nf4 run as fp4", {"bitsandbytes": {"kind": "nf4"}}, quantized_as(kind="fp4")),
    ("quantization", "one layer left out", {"bitsandbytes": {"kind": "int8"}}, ONE_LEFT_OUT),
    ("double_quantization", "scales left alone", {"bitsandbytes": {"double": True}}, quantized_as(double=False)),
    ("outlier_threshold", "threshold ignored", {"bitsandbytes": {"kind": "int8", "threshold": 0.0}},
     quantized_as(threshold=6.0)),
    ("compute_format", "multiplied in float32", {"bitsandbytes": {"compute": "bfloat16"}},
     quantized_as(compute="float32")),
    ("kv", "static run as dynamic", {"kv_cache": {"kind": "static"}}, FULL_CACHE),
    ("kv", "off run with a cache", {"kv_cache": {"kind": "off"}}, FULL_CACHE),
    ("kv_bits", "one of two layers not packed", {"kv_quant": {}}, EVERY_OTHER_PLAIN),
    ("kv_bits", "no layer packed", {"kv_quant": {}}, FULL_CACHE),
    ("kv_group", "groups twice as large", {"kv_quant": {"size": 16}}, LARGER_GROUPS),
    ("kv_group", "keys packed in smaller groups", {"kv_quant": {"size": 16}}, SMALLER_GROUPS),
    ("window", "window ignored", {"kv_window": {}}, FULL_CACHE),
    ("sinks", "first tokens forgotten", {"kv_window": {}}, patched(
        modules, "Windowed", lambda real: lambda model, pad, sinks, window: real(model, pad, 0, window))),
    ("speculation", "lookup ignored", {"prompt_lookup": {}}, PLAINLY),
    ("speculation", "early exit ignored", {"early_exit": {"layers": 1}}, PLAINLY),
    ("speculation.layers", "all layers guess", {"early_exit": {"layers": 1}}, ALL_GUESS),
    ("speculation", "draft ignored", {"draft_model": {"model": "self"}}, PLAINLY),
    ("draft_format", "draft in full width", {"draft_model": {"model": "self"}}, DRAFT_IN_FULL),
    ("continuous", "one after another", {"continuous_batching": {}}, ONE_BY_ONE),
    ("continuous.slots", "one slot for two requests", {"continuous_batching": {}}, ONE_SLOT),
    ("continuous.chunk", "prompts read whole", {"continuous_batching": {"chunk": 16}}, READ_WHOLE),
    ("compiled", "run eagerly", {"torch_compile": {}}, compiled_as(lambda model, plan: model.forward)),
    ("compile_mode", "first kernels taken", {"torch_compile": {"mode": "max-autotune"}},
     compiled_as(lambda model, plan: whole(model, replace(plan, compile="default")))),
    ("compiled", "graph broken in two", {"torch_compile": {}}, compiled_as(in_pieces)),
    ("merged", "not merged", {"merged_projections": {}}, UNMERGED),
    ("native", "modules instead of one call", {"native_step": {}}, UNPACKED),
    ("input_bits", "inputs in 16 bits", {"native_step": {}, "packed_weights": {"inputs": "8"}}, IN_16_BITS),
    ("prefix", "prompts read in full", {"prefix_reuse": {"least": 4}}, UNREAD_PREFIX),
    ("threads", "threads not set", {"threads": {"count": 2}}, ONE_THREAD),
]  # fmt: skip
"""What is expected, what happens instead, the lane, and the sabotage."""
ELSEWHERE = {"graph", "kernels", "offload", "tensor_parallel", "replicas"}
"""What needs a GPU or several processes: planted in what a lane without them reports."""


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


def pages_with(**changes: int) -> Callable:
    """The library is handed other knobs."""
    return patched(
        generate, "pages", lambda real: lambda model, whole, knobs, *rest: real(model, whole, knobs | changes, *rest)
    )


IN_GENERATE = {
    "speculation layers 1": ({"early_exit": {"layers": 1}}, lambda monkeypatch: monkeypatch.setitem(
        OPTIONS, "early_exit", lambda *_: {"assistant_early_exit": 2})),
    "continuous chunk 16": ({"continuous_batching": {"chunk": 16}}, pages_with(chunk=64)),
    "continuous slots 2": ({"continuous_batching": {}}, pages_with(slots=1)),
}  # fmt: skip


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
    if ways := optimizations()[name](**knobs).ways():
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
