"""Every architecture writes what transformers' own generate writes, whatever keeps its keys and values."""

from dataclasses import replace
from importlib import import_module

import pytest
import torch
from transformers import AutoModelForCausalLM, FalconConfig
from transformers.models.auto.configuration_auto import model_type_to_module_name
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

from engine.decode.footprint import footprint, kv_bytes
from engine.measure.ceiling import Use
from engine.measure.fit import fit
from engine.measure.machine import Gpu, machine
from engine.models.architecture import architecture, known
from engine.models.families import WITHOUT_FLEX, WITHOUT_SDPA
from engine.plan import Plan
from engine.refusal import Refusal
from engine.spec import Lane, plan_for
from tests.engine.contract import generate
from tests.engine.tiny_models import BIASED, DECODERS, FALCON, WINDOW, tiny

PROMPTS = ("The lamp is lit. abcabcabc The lamp is", "x", "The keeper of the lamp is glad.")
"""Two of them are longer than the sliding windows of the tiny models, one is far shorter."""
LANES = {
    "dynamic": {},
    "static": {"kv_cache": {"kind": "static"}},
    "off": {"kv_cache": {"kind": "off"}},
    "ragged": {"batching": {"size": 3}},
    "ragged-static": {"batching": {"size": 3}, "kv_cache": {"kind": "static"}},
    "ragged-off": {"batching": {"size": 3}, "kv_cache": {"kind": "off"}},
}

SHORTER = {name: LANES[name] for name in ("static", "ragged", "ragged-static")}
GUESSING = {
    "lookup": {"prompt_lookup": {}},
    "early-exit": {"early_exit": {"layers": 1}},
    "prefix": {"prefix_reuse": {"least": 1}},
}
SLOTS = {"slots": {"continuous_batching": {"slots": 2, "chunk": 5}}}
REFUSED = {"falcon": ["static", "ragged-static", "slots"], "bloom": ["slots"]}
"""Of these lanes, those that a model with a bias by distance cannot run."""


@pytest.mark.parametrize("kind", DECODERS)
def test_it_writes_what_generate_writes(kind, tmp_path):
    folder = tiny(kind, tmp_path)
    wanted = generate(folder, Lane(backend="generate"), 20, PROMPTS)
    assert all(len(set(tokens)) > 2 for tokens in wanted.values()), "a model that repeats one token proves nothing"
    for name, opts in LANES.items():
        assert generate(folder, Lane(opts=opts), 20, PROMPTS) == wanted, name


@pytest.mark.parametrize("kind", REFUSED)
def test_a_bias_by_distance_runs_or_is_refused_before_it_is_loaded(kind, tmp_path):
    folder = tiny(kind, tmp_path)
    wanted = generate(folder, Lane(backend="generate"), 20, PROMPTS)
    assert all(len(set(tokens)) > 2 for tokens in wanted.values()), "a model that repeats one token proves nothing"
    refused = {}
    for name, opts in {**SHORTER, **GUESSING, **SLOTS}.items():
        try:
            assert generate(folder, Lane(opts=opts), 20, PROMPTS) == wanted, name
        except Refusal as refusal:
            refused[name] = refusal.why
    assert list(refused) == REFUSED[kind]
    assert all(why.endswith(".") and "cannot be loaded" not in why for why in refused.values())


def test_what_makes_the_cache_static_or_cuts_it_is_refused_with_a_bias_by_distance(tmp_path):
    folder = str(tiny("falcon", tmp_path))
    lent = replace(machine(), gpus=(Gpu("H200", 141 << 30, "9.0", "580"),), compiler="g++", zero_gpu=False)
    for name in ("torch_compile", "cuda_graph", "kv_window"):
        with pytest.raises(Refusal, match=r"\(ALiBi\) of this model .*: .*\.$"):
            plan_for(Lane(opts={name: {}}), folder, lent)
    assert plan_for(Lane(opts={"fastest": {}}), folder, lent).cache == "dynamic"


def test_attention_that_a_family_does_not_have_is_refused_before_it_is_loaded(tmp_path):
    def refused(kind: str, kernel: str) -> str:
        with pytest.raises(Refusal) as refusal:
            plan_for(Lane(opts={"attention": {"kernel": kernel}}), str(tmp_path / kind), here)
        return refusal.value.why

    here = replace(machine(), compiler="g++", zero_gpu=False)
    for kind in BIASED:
        tiny(kind, tmp_path)
    for kernel in ("sdpa", "math", "efficient", "flash", "flex"):
        assert refused("bloom", kernel).endswith("for a bloom model: set attention to auto or eager.")
    assert refused("falcon", "flex").endswith("for a falcon model: set attention to auto or sdpa.")
    assert "twice" in refused("falcon", "eager")
    assert [plan_for(Lane(), str(tmp_path / kind), here).attention for kind in BIASED] == ["sdpa", "eager", "eager"]
    with pytest.raises(Refusal, match="no fixed shapes"):
        plan_for(Lane(opts={"torch_compile": {}}), str(tmp_path / "mpt"), here)


def test_the_tables_of_attention_are_what_the_classes_say():
    """Families that the installed transformers does not know are left out."""
    for kind in {*WITHOUT_SDPA, *WITHOUT_FLEX} & {*CAUSAL}:
        module = import_module(f"transformers.models.{model_type_to_module_name(kind)}")
        cls = getattr(module, CAUSAL[kind])
        assert (cls._supports_sdpa, cls._supports_flex_attn) == (kind not in WITHOUT_SDPA, kind not in WITHOUT_FLEX)


@pytest.mark.parametrize("kind", DECODERS)
def test_its_shape_is_known_before_it_is_loaded(kind, tmp_path):
    shape = known(str(tiny(kind, tmp_path)))
    assert shape.keeps_kv and shape.layers and shape.kv_heads * shape.head_dim in (32, 64)
    sliding = {"mistral": 2, "gemma2": 1, "gemma3": 2}
    assert (shape.sliding, shape.window) == (sliding.get(kind, 0), WINDOW if kind in sliding else None)
    assert shape.experts == (4 if kind == "qwen3_moe" else 0)


def test_windows_are_counted_in_configs_that_do_not_list_their_layers():
    def sliding(**config) -> int:
        return architecture({"num_hidden_layers": 6, "hidden_size": 8, "sliding_window": 16, **config}).sliding

    assert sliding(model_type="mistral") == 6
    assert sliding(model_type="gemma2") == 3
    assert sliding(model_type="gemma3_text", sliding_window_pattern=6) == 5
    assert sliding(model_type="qwen2", use_sliding_window=True, max_window_layers=4) == 2
    assert sliding(model_type="qwen2", use_sliding_window=False) == 0


GROUPED = {
    "old": ({}, 1, 1),
    "apart": ({"multi_query": False}, 4, 4),
    "new": ({"new_decoder_architecture": True, "num_kv_heads": 2}, 2, 4),
}


@pytest.mark.parametrize("kind", GROUPED)
def test_falcon_keeps_the_heads_that_are_foretold(kind):
    changes, heads, kept = GROUPED[kind]
    config = FalconConfig(**FALCON, **changes)
    with torch.inference_mode():
        cache = AutoModelForCausalLM.from_config(config)(torch.ones((1, 9), dtype=torch.long)).past_key_values
    shape = architecture(config.to_dict())
    assert (shape.kv_heads, shape.kept_heads) == (heads, kept)
    assert (
        kv_bytes(cache) == 9 * shape.kv_bytes_per_token(4) == fit(Plan("transformers", "m"), shape, Use(8, 1), None).kv
    )
    found = footprint(cache, shape, 9)
    assert found["predicted_bytes_per_token"] == found["bytes_per_token"]


def test_published_falcons_share_heads():
    old = {"model_type": "falcon", "hidden_size": 4544, "num_attention_heads": 71, "num_kv_heads": 71}
    assert architecture({**old, "multi_query": True, "new_decoder_architecture": False}).kv_heads == 1
    new = {"model_type": "falcon", "hidden_size": 8192, "num_attention_heads": 128, "num_kv_heads": 8}
    assert architecture({**new, "multi_query": True, "new_decoder_architecture": True}).kv_heads == 8
    assert architecture({"model_type": "gpt_bigcode", "n_embd": 64, "n_head": 4, "multi_query": True}).kv_heads == 1


@pytest.mark.parametrize(("kind", "what"), [("t5", "encoder-decoder"), ("vit", "no text generator")])
def test_what_does_not_write_text_is_refused_in_a_sentence(kind, what, tmp_path):
    with pytest.raises(Refusal, match=what) as refused:
        generate(tiny(kind, tmp_path), Lane(), 4, ("x",))
    assert refused.value.why.endswith(".")


@pytest.mark.parametrize("opts", [{}, {"kv_cache": {"kind": "static"}}])
def test_a_model_with_a_running_state_is_refused_for_what_it_is(opts, tmp_path):
    folder = tiny("mamba", tmp_path)
    with pytest.raises(Refusal, match="runs models that attend in all layers, and a mamba model") as refused:
        plan_for(Lane(opts=opts), str(folder), machine())
    assert "KV cache" not in refused.value.why and refused.value.why.endswith(
        "choose a model with attention in all layers."
    )
