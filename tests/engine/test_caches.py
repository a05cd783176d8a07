"""Caches: what they keep, what that takes, and what may not go together."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from engine.decode.caches import growing_cache
from engine.decode.footprint import footprint
from engine.decode.generate import GenerateSession
from engine.decode.quantized import Packed, QuantizedLayer, packable
from engine.decode.sampling import Sampling
from engine.decode.sinks import SLACK, SinkLayer
from engine.measure.machine import Gpu, machine
from engine.models.architecture import known
from engine.plan import Plan
from engine.refusal import Refusal
from engine.spec import Lane, plan_for
from tests.engine.contract import KEPT, configurations, full, generate, ids
from tests.engine.tiny import tiny as small
from tests.engine.tiny_models import WINDOW, tiny

TEXT = "The lamp is lit. abcabcabc The lamp is lit, and the keeper of the lamp is glad, and "
NEW = 20
GPU = replace(machine(), gpus=(Gpu("a GPU", 80 * 10**9, "9.0", "580"),))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("caches")
    return {kind: tiny(kind, root) for kind in ("llama", "qwen3", "gpt2", "gemma3")}


def kept(model: Any, opts: dict[str, Any], prompts: tuple[str, ...] = (TEXT,)) -> dict[str, Any]:
    """What the session found in its cache after these prompts."""
    generate(model, Lane(opts=opts), NEW, prompts)
    return next(iter(KEPT.values())).effective()


def refused(opts: dict[str, Any], model: str = "smollm2-135m", on: Any = None, **lane: Any) -> str:
    """The sentence with which a lane is refused."""
    with pytest.raises(Refusal) as refusal:
        plan_for(full(Lane(opts=opts, **lane)), model, on or machine())
    assert refusal.value.why.endswith(".")
    return refusal.value.why


@pytest.mark.parametrize("guessing", ["prompt_lookup", "draft_model", "early_exit"])
def test_packed_keys_and_values_do_not_go_with_guesses(guessing):
    assert "takes wrong guesses back out of the KV cache" in refused({"kv_quant": {}, guessing: {}})


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("model", ["llama", "qwen3", "gpt2"])
def test_a_token_takes_what_the_architecture_says(model, kind, folders):
    found = kept(folders[model], {"kv_cache": {"kind": kind}})["kv"]
    wanted = known(str(folders[model])).kv_bytes_per_token(4)
    assert found["kind"] == kind
    assert found["bytes_per_token"] == found["predicted_bytes_per_token"] == wanted
    assert found["bytes"] == wanted * found["tokens"]
    assert found["tokens"] == (len(TEXT) + NEW - 1 if kind == "dynamic" else 128)


@pytest.mark.parametrize(("kind", "window"), [("dynamic", WINDOW - 1), ("static", WINDOW)])
def test_layers_with_a_window_keep_only_that(kind, window, folders):
    found = kept(folders["gemma3"], {"kv_cache": {"kind": kind}})["kv"]
    shape = known(str(folders["gemma3"]))
    one = shape.kv_bytes_per_token(4) / shape.layers
    assert (shape.sliding, shape.layers) == (2, 3)
    assert found["bytes"] == one * (found["tokens"] + shape.sliding * window)
    assert found["predicted_bytes_per_token"] == found["bytes_per_token"] < shape.kv_bytes_per_token(4)


@pytest.mark.parametrize(("keys", "values", "bytes_"), [(8, 8, 2.5), (8, 4, 2.0), (4, 4, 1.5), (16, 4, 4.75)])
def test_packed_keys_and_values_take_what_was_predicted(keys, values, bytes_, folders):
    """In float32, with groups of 16: a packed number takes its bits and 4 / 16 bytes for its share of the scales."""
    found = kept(folders["llama"], {"kv_quant": {"keys": keys, "values": values, "size": 16}})
    assert found["kv_bits"] == f"{keys}/{values}"
    tokens, numbers = len(TEXT) + NEW - 1, 2 * 2 * 16
    older = packable(tokens, 16)
    assert found["kv"]["bytes"] == numbers * (older * bytes_ + (tokens - older) * 8)
    assert found["kv"]["predicted_bytes_per_token"] == found["kv"]["bytes_per_token"]


def test_packing_leaves_layers_with_a_window_alone(folders):
    found = kept(folders["gemma3"], {"kv_quant": {"size": 16}})
    assert found["kv_bits"] == "8/4"
    assert found["kv"]["predicted_bytes_per_token"] == pytest.approx(found["kv"]["bytes_per_token"])
    assert "keeps only its window" in refused({"kv_quant": {}}, str(tiny_mistral(folders)))


def tiny_mistral(folders) -> Any:
    return tiny("mistral", folders["llama"].parent)


@pytest.mark.model
@pytest.mark.parametrize(
    "opts", [{}, {"kv_cache": {"kind": "static"}}, {"kv_quant": {}}, {"kv_window": {"window": 16}}]
)
def test_the_embedded_model_takes_what_was_predicted(opts):
    found = kept("smollm2-135m", opts, ("Why is the sky blue? " * 12,))["kv"]
    assert found["predicted_bytes_per_token"] == found["bytes_per_token"]
    whole = known("smollm2-135m").kv_bytes_per_token(4)
    assert whole == 2 * 30 * 3 * 64 * 4
    assert found["bytes_per_token"] < whole if "kv_quant" in opts else found["bytes_per_token"] == whole


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("by_channel", [True, False])
def test_a_number_is_rounded_by_at_most_half_a_step_of_its_group(bits, by_channel):
    block = torch.randn(2, 3, 64, 16, generator=torch.Generator().manual_seed(1)) * 3
    packed, out = Packed(bits, 16, by_channel), torch.empty(2, 3, 64, 16)
    packed.add(block[:, :, :32])
    packed.add(block[:, :, 32:])
    packed.read(out)
    assert packed.codes.numel() == block.numel() * bits // 8
    groups = block.unflatten(-2, (-1, 16)) if by_channel else block[..., None, :]
    along = -2 if by_channel else -1
    step = (groups.amax(along, keepdim=True) - groups.amin(along, keepdim=True)) / (2**bits - 1)
    error = (out - block).abs().view(groups.shape)
    assert (error <= step * 0.51 + 2e-3).all()
    assert error.max() > 0


def test_keys_with_one_large_channel_need_groups_by_channel():
    keys = torch.randn(1, 1, 32, 16, generator=torch.Generator().manual_seed(1))
    keys[..., 3] *= 100
    errors = []
    for by_channel in (True, False):
        packed, out = Packed(4, 16, by_channel), torch.empty_like(keys)
        packed.add(keys)
        packed.read(out)
        errors.append((out - keys)[..., :3].abs().max())
    assert errors[0] < errors[1] / 10


def test_taken_back_tokens_leave_no_trace_in_a_packed_layer():
    def filled(wrong: int) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(2)
        layer = QuantizedLayer(8, 4, 16)
        tokens = torch.randn(1, 2, 50, 16, generator=generator)
        layer.update(tokens, tokens)
        if wrong:
            layer.update(tokens[:, :, :wrong] + 9, tokens[:, :, :wrong])
            layer.crop(-wrong)
        return list(layer.update(tokens[:, :, :1], tokens[:, :, 1:2]))

    assert all(torch.equal(one, other) for one, other in zip(filled(0), filled(5), strict=True))
    with pytest.raises(ValueError, match="newest tokens"):
        layer = QuantizedLayer(8, 4, 16)
        layer.update(torch.zeros(1, 1, 64, 16), torch.zeros(1, 1, 64, 16))
        layer.crop(-40)


@pytest.mark.parametrize("sinks", [0, 3])
@pytest.mark.parametrize("prompt", [5, 40, 200])
def test_a_window_keeps_the_first_and_the_newest_tokens_in_memory_that_does_not_grow(prompt, sinks):
    layer, seen = SinkLayer(sinks, 16), list(range(prompt))
    layer.update(numbered(seen), numbered(seen))
    size = sum(tensor.numel() for tensor in (layer.keys, layer.values))
    for token in range(prompt, prompt + 3 * SLACK):
        before = layer.kept
        assert layer.get_mask_sizes(1) == (before + 1, token - before)
        keys, _ = layer.update(numbered([token]), numbered([token]))
        seen.append(token)
        wanted = seen if len(seen) <= sinks + 17 else seen[:sinks] + seen[-17:]
        assert keys.flatten().tolist() == wanted
    assert sum(tensor.numel() for tensor in (layer.keys, layer.values)) == size == 2 * (sinks + 16 + SLACK)
    assert layer.get_seq_length() == prompt + 3 * SLACK


def numbered(tokens: list[int]) -> torch.Tensor:
    return torch.tensor(tokens, dtype=torch.float32)[None, None, :, None]


@pytest.mark.parametrize("model", ["llama", "gpt2"])
def test_a_window_larger_than_the_text_changes_nothing(model, folders):
    prompts = (TEXT, TEXT[:40], "lamp oil")
    wanted = generate(folders[model], Lane(), NEW, prompts)
    for more in ({}, {"batching": {"size": 3}}):
        lane = Lane(opts={"kv_window": {"window": 256}, **more})
        assert generate(folders[model], lane, NEW, prompts) == wanted
    small = generate(folders[model], Lane(opts={"kv_window": {"window": 16}}), NEW, prompts)
    assert small != wanted
    ragged = Lane(opts={"kv_window": {"window": 16}, "batching": {"size": 3}})
    assert generate(folders[model], ragged, NEW, prompts) == small, "padding must be nobody's sink"


@pytest.mark.parametrize("kind", ["kv_quant", "kv_window", "kv_offload"])
def test_what_brings_its_own_cache_refuses_what_fixes_the_shape(kind):
    for other in ({"kv_cache": {"kind": "static"}}, {"kv_cache": {"kind": "off"}}, {"torch_compile": {}}):
        assert "dynamic" in refused({kind: {}, **other}, on=GPU)


def test_caches_that_do_not_go_together_are_refused():
    for one, other in (("kv_quant", "kv_window"), ("kv_quant", "prefix_reuse"), ("kv_window", "prefix_reuse"),
                       ("kv_window", "prompt_lookup"), ("prefix_reuse", "kv_offload")):  # fmt: skip
        refused({one: {}, other: {}}, on=GPU)
    assert "nothing is packed" in refused({"kv_quant": {"keys": 16, "values": 16}})
    assert "Without a KV cache" in refused({"prefix_reuse": {}, "kv_cache": {"kind": "off"}})


@pytest.mark.parametrize("backend", ["transformers", "generate"])
def test_offloading_needs_a_gpu(backend):
    assert refused({"kv_offload": {}}, backend=backend, device="cpu").startswith(
        "Keys and values already lie in host memory"
    )
    assert "host memory" in refused({"kv_offload": {}}, on=GPU, backend=backend, device="cpu")
    plan = plan_for(Lane(backend=backend, opts={"kv_offload": {}}), "smollm2-135m", GPU)
    assert plan.offload and plan.expected["offload"] is True


def test_what_comes_back_from_the_host_has_arrived_there(monkeypatch):
    """With a stand-in for the GPU's second stream: it waits for the first before a layer is asked for."""
    order = []

    class Stream:
        def wait_stream(self, other):
            order.append(other)

    monkeypatch.setattr(torch, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "now")
    monkeypatch.setattr(DynamicCache, "update", lambda self, keys, values, layer: order.append(layer) or (keys, values))
    model = small("llama")
    keys = torch.ones(1, 2, 3, 16)
    session = GenerateSession()
    session.model = model
    plan = plan_for(Lane(backend="generate", opts={"kv_offload": {}}), "smollm2-135m", GPU)
    ours = growing_cache(model.config, plan)
    theirs = session._options(plan, 4, Sampling(frozenset(), True))["past_key_values"]
    for cache in (ours, theirs):
        assert cache.offloading
        for layer in range(2):
            cache.update(keys, keys, layer)
        assert order == ["now", 0, "now", 1]
        order.clear()


@pytest.mark.parametrize("case", configurations(), ids=ids)
def test_who_brings_another_kind_of_cache_expects_that_kind(case):
    """Planned for a GPU: what was expected of the usual cache must not stand when another takes its place."""
    name, knobs = case
    try:
        plan = plan_for(Lane(opts={name: knobs}), "smollm2-135m", GPU)
    except Refusal:
        return
    assert plan.expected.get("kv", plan.cache) == plan.cache


def test_what_did_not_run_is_said():
    plan = Plan("transformers", "m", expected={"kv": "dynamic", "kv_bits": "8/4", "window": 256, "offload": True})
    cache = {"kv": footprint(None, known("smollm2-135m"), 0), "kv_bits": None, "window": 64, "offload": False}
    assert len(plan.unmet(cache)) == 4
    assert not plan.unmet({"kv": {"kind": "dynamic"}, "kv_bits": "8/4", "window": 256, "offload": True})
