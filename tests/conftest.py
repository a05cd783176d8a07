"""Fixtures that everything under tests/ shares: a tiny model, the embedded one, a history of its own."""

import os
from pathlib import Path

import pytest

from engine.models import embedded
from engine.refusal import Refusal

BESIDE = {
    "test_architecture", "test_architectures", "test_assisted", "test_attention_kernels", "test_cache_quality",
    "test_caches", "test_checkpoints", "test_coarse_draft", "test_coarse_plans", "test_code", "test_distil",
    "test_drafts", "test_fold_cost", "test_fuse", "test_gpu_lanes", "test_gpu_step", "test_graphs", "test_kernels",
    "test_lossless", "test_models_load", "test_native_slots", "test_native_step", "test_offload",
    "test_optimizations", "test_pages", "test_pairs", "test_prefix", "test_presets", "test_quality",
    "test_quantization", "test_rejection", "test_sabotage", "test_scheduler", "test_speculate", "test_step_kernels",
    "test_step_numba", "test_trained_drafts", "test_verdict_power", "test_why_rules",
}  # fmt: skip
"""Modules of tests that another test beside them cannot disturb: no browser, and nothing that a clock decides."""


@pytest.fixture(autouse=True, scope="session")
def own_home(tmp_path_factory: pytest.TempPathFactory):
    """No test touches the user's history."""
    os.environ["PITLANE_HOME"] = str(tmp_path_factory.mktemp("home"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what may run beside other tests, and skip with one sentence what needs a model that cannot be fetched."""
    for item in items:
        if item.path.stem in BESIDE:
            item.add_marker("beside")
    marked = [item for item in items if item.get_closest_marker("model")]
    if not marked:
        return
    try:
        embedded.fetch_embedded()
    except Refusal as refusal:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=str(refusal)))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a two-layer Llama of random weights and a tokenizer of single bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {token: number for number, token in enumerate(["<end>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>").save_pretrained(folder)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
        eos_token_id=0, pad_token_id=0, bos_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
