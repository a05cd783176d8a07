"""Weights really are quantized, what ran is read back from them, and what cannot run is refused."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torchao.quantization as ao
from torchao.quantization import Int4TilePackedTo4dTensor

from engine.measure.machine import Gpu, machine
from engine.models import effective, load
from engine.models.architecture import known
from engine.models.quantize import LIBRARIES, names, quantize
from engine.models.resolve import resolve
from engine.optimizations.bitsandbytes import BitsAndBytes
from engine.optimizations.torchao import TorchAO
from engine.refusal import Refusal
from engine.spec import Lane, plan_for
from tests.engine.plans import planned
from tests.engine.tiny import tiny as tiny_of

HERE = [
    ("bitsandbytes", "int8"),
    ("bitsandbytes", "nf4"),
    ("bitsandbytes", "fp4"),
    ("torchao", "int8-weight-only"),
    ("torchao", "int8-dynamic"),
    ("torchao", "fp8-weight-only"),
]
"""What runs without a GPU."""
WORST = {
    "int8": 0.03,
    "nf4": 0.15,
    "fp4": 0.25,
    "int8-weight-only": 0.02,
    "int8-dynamic": 0.03,
    "fp8-weight-only": 0.05,
}
"""Largest relative error of one layer."""


@pytest.mark.parametrize(("library", "kind"), HERE)
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3", "opt"])
def test_every_layer_but_the_head_is_quantized_and_computes_nearly_the_same(architecture, library, kind):
    wide = {"ffn_dim" if architecture == "opt" else "intermediate_size": 128}
    model, plain = tiny_of(architecture, **wide), tiny_of(architecture, **wide)
    layers = names(model)
    quantize(model, {"library": library, "kind": kind}, "cpu")
    found = effective.quantization(model)
    assert (found["kind"], found["layers"]) == (kind, len(layers))
    assert len(layers) >= 8
    assert model.get_output_embeddings().weight.dtype == torch.float32
    for name in layers:
        with torch.inference_mode():
            entering = torch.randn(1, 5, plain.get_submodule(name).weight.shape[architecture != "gpt2"])
            exact, found = plain.get_submodule(name)(entering), model.get_submodule(name)(entering)
        assert 0 < (found - exact).norm() / exact.norm() < WORST[kind], name
    with torch.inference_mode():
        assert model(torch.arange(1, 20)[None]).logits.isfinite().all()


@pytest.mark.parametrize(("library", "kind"), HERE)
def test_loading_and_quantizing_are_told_apart(tiny, library, kind):
    phases = []
    wanted = {"library": library, "kind": kind}
    model = load.load_model(resolve(str(tiny)), tiny, planned("bfloat16", "sdpa", wanted), phases.append)
    assert phases == ["quantize"]
    found = load.effective(model)
    assert found["quantization"]["kind"] == kind
    assert found["dtype"] == "bfloat16"


@pytest.mark.parametrize(("library", "kind"), HERE)
def test_a_plan_is_met_by_what_really_ran_only(tiny, library, kind):
    wanted = {"library": library, "kind": kind}
    plan = planned("float32", "sdpa", wanted)
    plan.expected["quantization"] = kind
    model = load.load_model(resolve(str(tiny)), tiny, plan)
    assert plan.unmet(load.effective(model)) == []
    plain = load.load_model(resolve(str(tiny)), tiny, planned("float32"))
    assert plan.unmet(load.effective(plain)) == [f"Asked for quantization {kind}, but nothing ran."]
    first = names(plain)[0]
    model.set_submodule(first, plain.get_submodule(first))
    assert plan.unmet(load.effective(model)) == [f"Asked for quantization {kind}, but partly {kind} ran."]


def int4_for_nothing(settings, dtype):
    """Layers whose weight says that it is torchao's int4 of a GPU, with nothing in it."""

    def convert(layer):
        group, (rows, columns) = settings["group"], layer.weight.shape
        scales = torch.zeros(1024 // group, rows, 2)
        packed = torch.zeros(rows // 8, 1024 // 128, 32, 4, dtype=torch.int32)
        weight = Int4TilePackedTo4dTensor(packed, scales, [1, group], torch.Size((rows, columns)))
        layer.weight = torch.nn.Parameter(weight, requires_grad=False)
        return layer

    return convert


@pytest.mark.parametrize("asked", [32, 64])
def test_the_group_of_int4_is_read_from_the_weights(tiny, asked, monkeypatch):
    plan = planned("bfloat16", "sdpa")
    TorchAO(kind="int4-weight-only", group_size=asked).on_transformers(plan)
    monkeypatch.setitem(LIBRARIES, "torchao", int4_for_nothing)
    assert plan.unmet(load.effective(load.load_model(resolve(str(tiny)), tiny, plan))) == []
    monkeypatch.setitem(LIBRARIES, "torchao", lambda settings, dtype: int4_for_nothing({"group": 128}, dtype))
    found = plan.unmet(load.effective(load.load_model(resolve(str(tiny)), tiny, plan)))
    assert found == [f"Asked for quantization group {asked}, but 128 ran."]


@pytest.mark.parametrize(("granularity", "group"), [("PerRow", "a row"), ("PerTensor", "all"), ("PerGroup", 32)])
def test_how_many_weights_share_a_scale_is_read_from_the_weights(tiny, granularity, group):
    model = load.load_model(resolve(str(tiny)), tiny, planned("bfloat16", "sdpa"))
    size = (group,) if granularity == "PerGroup" else ()
    made = getattr(ao, granularity)(*size)
    config = ao.Int8WeightOnlyConfig(granularity=made, set_inductor_config=False)
    ao.quantize_(model, config, filter_fn=lambda module, name: name in names(model))
    assert effective.quantization(model)["group"] == group


def test_another_kind_than_the_one_asked_for_is_seen(tiny):
    model = load.load_model(
        resolve(str(tiny)), tiny, planned("float32", "sdpa", {"library": "bitsandbytes", "kind": "fp4"})
    )
    plan = planned()
    plan.expected["quantization"] = "nf4"
    assert plan.unmet(load.effective(model)) == ["Asked for quantization nf4, but fp4 ran."]


def test_the_knobs_reach_the_layers(tiny):
    def made(**settings):
        wanted = {"library": "bitsandbytes", **settings}
        return load.load_model(resolve(str(tiny)), tiny, planned("float32", "sdpa", wanted))

    def layer(model):
        return model.model.layers[0].mlp.up_proj

    assert layer(made(kind="int8", threshold=0.0)).state.threshold == 0
    assert layer(made(kind="int8", threshold=3.5)).state.threshold == 3.5
    assert layer(made(kind="nf4", compute="bfloat16")).compute_dtype == torch.bfloat16
    assert layer(made(kind="nf4")).compute_dtype == torch.float32
    assert layer(made(kind="fp4", double=True)).weight.quant_state.nested
    assert not layer(made(kind="fp4")).weight.quant_state.nested


def test_bytes_are_those_of_the_narrow_numbers_and_their_scales():
    for wanted in (None, *HERE):
        model = tiny_of("llama", hidden_size=256, intermediate_size=512)
        weights = [model.get_submodule(name).weight for name in names(model)]
        numbers = sum(weight.numel() for weight in weights)
        rest = load.weights_bytes(model) - 4 * numbers
        if wanted:
            quantize(model, dict(zip(("library", "kind"), wanted, strict=True)), "cpu")
        each = 4 if wanted is None else 0.5 if wanted[1] in ("nf4", "fp4") else 1
        assert each <= (load.weights_bytes(model) - rest) / numbers <= each + 0.07, wanted


@pytest.mark.parametrize(
    ("opts", "told"),
    [
        (
            {"attention": {"kernel": "flash"}},
            r"compute capability 8\.0 or newer, and this one has 7\.5: choose efficient",
        ),
        ({"fused_kernels": {}}, r"Triton, which needs compute capability 8\.0 or newer, and this GPU has 7\.5: switch"),
        ({"native_step": {}}, r"compute capability 8\.0 or newer, and this one has 7\.5: set the device to cpu"),
    ],
    ids=["flash attention", "fused kernels", "native step"],
)
def test_what_an_older_gpu_cannot_do_is_refused_before_anything_is_loaded(opts, told):
    with pytest.raises(Refusal, match=told):
        plan_for(Lane(opts=opts), "smollm2-135m", gpu("7.5"))
    assert plan_for(Lane(opts=opts), "smollm2-135m", gpu("8.0")).device == "cuda"
    if "native_step" in opts:
        assert plan_for(Lane(device="cpu", opts=opts), "smollm2-135m", gpu("7.5")).native


def test_an_older_gpu_computes_in_float16_unless_told():
    found = {cap: plan_for(Lane(), "smollm2-135m", gpu(cap)).dtype for cap in ("7.5", "8.0", "10.0")}
    assert found == {"7.5": "float16", "8.0": "bfloat16", "10.0": "bfloat16"}


def test_experts_that_stay_plain_are_seen():
    """The experts of a mixture are one block of weights each, which no library here reaches."""
    from transformers import AutoModelForCausalLM, MixtralConfig

    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 32}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "num_local_experts": 2}
    model = AutoModelForCausalLM.from_config(MixtralConfig(**sizes, **heads)).eval()
    quantize(model, {"library": "bitsandbytes", "kind": "nf4"}, "cpu")
    assert effective.quantization(model)["kind"] == "partly nf4"


def gpu(capability: str):
    card = Gpu("a card", 2**34, capability, "1")
    return replace(machine(), gpus=(card,), packages={**machine().packages, "torchao": "0.18.0", "bitsandbytes": "1"})


def shape(**changes):
    base = {
        "hidden": 1024,
        "feed_forward": 4096,
        "heads": 16,
        "kv_heads": 4,
        "head_dim": 64,
        "experts": 0,
        "quantized": None,
    }
    return SimpleNamespace(**{**base, **changes})


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"kind": "nf4", "threshold": 0.0}, "belongs to int8"),
        ({"kind": "fp4", "threshold": 5.0}, "belongs to int8"),
        ({"kind": "int8", "double": True}, "belongs to nf4 and fp4"),
        ({"kind": "int8", "compute": "float32"}, "belongs to nf4 and fp4"),
    ],
)
def test_a_knob_of_another_kind_is_refused(knobs, told):
    assert told in BitsAndBytes(**knobs).limits(machine())


@pytest.mark.parametrize(
    ("knobs", "there", "model", "told"),
    [
        ({"kind": "int8-dynamic", "group_size": 128}, gpu("9.0"), None, "belongs to int4"),
        ({"kind": "fp8-dynamic"}, gpu("8.6"), None, "8.9 or newer"),
        ({"kind": "fp8-weight-only"}, gpu("8.0"), None, "8.9 or newer"),
        ({"kind": "int4-weight-only"}, gpu("7.5"), None, "8.0 or newer"),
        ({"kind": "int4-weight-only"}, replace(gpu("9.0"), gpus=()), None, "needs an NVIDIA GPU"),
        ({"kind": "int4-weight-only", "group_size": 128}, gpu("9.0"), shape(hidden=576), "a group size of 64"),
        ({"kind": "fp8-dynamic"}, gpu("9.0"), shape(feed_forward=1000), "steps of 16"),
        ({"kind": "fp8-dynamic"}, gpu("9.0"), shape(), None),
        ({"kind": "int4-weight-only", "group_size": 128}, gpu("8.0"), shape(), None),
        ({"kind": "fp8-weight-only"}, replace(gpu("9.0"), gpus=()), shape(), None),
    ],
)
def test_what_torchao_needs_is_said_before_loading(knobs, there, model, told):
    sentence = TorchAO(**knobs).limits(there, model)
    assert sentence is None if told is None else told in sentence and sentence.endswith(".")


@pytest.mark.parametrize(
    ("lane", "told"),
    [
        (Lane(opts={"torchao": {"kind": "int4-weight-only"}, "precision": {"dtype": "float32"}}), "bfloat16 only"),
        (Lane(device="cpu", opts={"torchao": {"kind": "fp8-dynamic"}}), "on a GPU only"),
        (Lane(opts={"torchao": True, "bitsandbytes": True}), "quantized once"),
        (Lane(device="cpu", opts={"bitsandbytes": {"compute": "float16"}}), "float16 has no fast"),
    ],
)
def test_what_cannot_go_together_is_refused(lane, told):
    with pytest.raises(Refusal, match=told):
        plan_for(lane, "smollm2-135m", gpu("9.0"))


@pytest.mark.parametrize(
    ("changes", "kind", "told"),
    [
        ({}, "nf4", None),
        ({"hidden": 96}, "nf4", "one of 96"),
        ({"feed_forward": 1000}, "fp4", "one of 1000"),
        ({"kv_heads": 1, "head_dim": 48, "heads": 4}, "nf4", "one of 48"),
        ({"hidden": 96}, "int8", None),
    ],
)
def test_widths_that_bitsandbytes_packs_wrongly_on_a_cpu_are_refused(changes, kind, told):
    plan = planned()
    plan.shape = shape(**changes)
    plan.quantization = {"library": "bitsandbytes", "kind": kind}
    sentence = BitsAndBytes(kind=kind).settle(plan)
    assert sentence is None if told is None else told in sentence


def test_knobs_are_refused_where_the_library_would_not_heed_them():
    packs = replace(machine(), gpus=(), instructions=("avx512_bf16",))
    assert "saves nothing" in BitsAndBytes(double=True).limits(packs)
    assert "multiplies 4-bit weights in bfloat16" in BitsAndBytes(compute="float32").limits(packs)
    assert BitsAndBytes(double=True).limits(replace(packs, instructions=())) is None
    assert BitsAndBytes(double=True).limits(gpu("9.0")) is None


@pytest.mark.parametrize("part", [BitsAndBytes, TorchAO])
def test_models_that_do_not_fit_and_missing_libraries_are_said(part):
    without = replace(machine(), packages={})
    assert part.unavailable(without) == f"The {part.package} package is not installed: pip install {part.package}."
    assert "come quantized already (gptq)" in part.unavailable(gpu("9.0"), shape(quantized="gptq"))
    assert "experts" in part.unavailable(gpu("9.0"), shape(experts=8))
    assert part.unavailable(gpu("9.0"), known("smollm2-135m")) is None
