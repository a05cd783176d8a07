"""The weights that are counted from a config are those that transformers' modules have."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from engine.models.architecture import architecture, known
from engine.models.catalogue import MODELS
from engine.models.parameters import parameters
from tests.engine.tiny_models import DECODERS, HEADS, SHAPE

EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 48}
ALIKE = {key: value for key, value in SHAPE.items() if key != "num_key_value_heads"}
FURTHER: dict[str, Callable[[], Any]] = {
    "mixtral": lambda: transformers.MixtralConfig(**HEADS, num_local_experts=4),
    "qwen2_moe": lambda: transformers.Qwen2MoeConfig(
        **SHAPE, **EXPERTS, num_experts=4, shared_expert_intermediate_size=80
    ),
    "sparse": lambda: transformers.Qwen3MoeConfig(**HEADS, **EXPERTS, num_experts=4, mlp_only_layers=[0]),
    "olmoe": lambda: transformers.OlmoeConfig(**SHAPE, num_experts=4, num_experts_per_tok=2),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**ALIKE),
    "phi": lambda: transformers.PhiConfig(**SHAPE),
    "starcoder2": lambda: transformers.Starcoder2Config(**SHAPE),
    "olmo2": lambda: transformers.Olmo2Config(**SHAPE),
    "granite": lambda: transformers.GraniteConfig(**SHAPE),
    "gemma": lambda: transformers.GemmaConfig(**HEADS),
    "stablelm": lambda: transformers.StableLmConfig(**SHAPE),
    "biased": lambda: transformers.LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True),
}
KINDS = {**DECODERS, **FURTHER}


def real(config: Any) -> int:
    """The numbers in transformers' own modules, those that are tied once."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_of_every_family_is_counted(kind):
    config = KINDS[kind]()
    assert parameters(architecture(json.loads(config.to_json_string()))).total == real(config)


@pytest.mark.parametrize("name", MODELS)
def test_catalogue_models_have_as_many_as_published(name):
    assert parameters(known(name)).total == MODELS[name].parameters


def test_the_embedded_model_by_hand():
    """30 layers of attention (576 x 9 x 64 twice, 576 x 3 x 64 twice) and feed-forward (3 x 576 x 1536)."""
    counted = parameters(known("smollm2-135m"))
    assert counted.embedding == 49152 * 576 == 28_311_552
    assert counted.linear == 30 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536) == 106_168_320
    assert counted.small == 30 * 2 * 576 + 576 == 35_136
    assert counted.head == counted.experts == 0
    assert counted.total == 134_515_008
