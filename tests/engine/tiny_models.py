"""Tiny models of random weights with a tokenizer of single bytes, saved to a folder: one for each architecture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

WORDS = {token: number for number, token in enumerate(["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
"""The vocabulary: an end mark, and each byte."""
CONTEXT = 512
WINDOW = 16
"""The sliding attention window of the models that have one: short enough for a test to leave it behind."""

ENDS = {"eos_token_id": 0, "pad_token_id": 0, "bos_token_id": 0}
SHAPE: dict[str, Any] = {
    "vocab_size": len(WORDS), "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT,
    "initializer_range": 0.2, **ENDS,
}  # fmt: skip
HEADS = {**SHAPE, "head_dim": 16}
UNTIED = {**HEADS, "tie_word_embeddings": False}
"""Gemma scales its embeddings up: a tied head would only repeat the last token."""
GPT2: dict[str, Any] = {
    "vocab_size": len(WORDS), "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT,
    "initializer_range": 0.2, **ENDS,
}  # fmt: skip
OPT: dict[str, Any] = {
    "vocab_size": len(WORDS), "hidden_size": 64, "word_embed_proj_dim": 64, "ffn_dim": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": CONTEXT, "init_std": 0.2, **ENDS,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
DECODERS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(**SHAPE),
    "qwen2": lambda: transformers.Qwen2Config(**SHAPE),
    "qwen3": lambda: transformers.Qwen3Config(**HEADS),
    "mistral": lambda: transformers.MistralConfig(**HEADS, sliding_window=WINDOW),
    "gemma2": lambda: transformers.Gemma2Config(**UNTIED, sliding_window=WINDOW, query_pre_attn_scalar=16),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **{**UNTIED, "num_hidden_layers": 3},
        sliding_window=WINDOW,
        query_pre_attn_scalar=16,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    ),
    "phi3": lambda: transformers.Phi3Config(**SHAPE, original_max_position_embeddings=CONTEXT),
    "gpt2": lambda: transformers.GPT2Config(**GPT2),
    "opt": lambda: transformers.OPTConfig(**OPT),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(**HEADS, **EXPERTS),
}
"""Decoder-only models that keep keys and values. Mistral, Gemma 2 and Gemma 3 have sliding windows."""
FALCON: dict[str, Any] = {
    "vocab_size": len(WORDS), "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT, "initializer_range": 0.2, **ENDS,
}  # fmt: skip
BIASED: dict[str, Callable[[], Any]] = {
    "falcon": lambda: transformers.FalconConfig(**FALCON, alibi=True),
    "bloom": lambda: transformers.BloomConfig(
        vocab_size=len(WORDS),
        hidden_size=64,
        n_layer=2,
        n_head=4,
        initializer_range=0.2,
        **ENDS,
        tie_word_embeddings=False,
    ),
    "mpt": lambda: transformers.MptConfig(
        vocab_size=len(WORDS), d_model=64, n_layers=2, n_heads=4, max_seq_len=CONTEXT, initializer_range=0.2, **ENDS
    ),
}
"""Decoder-only models with a bias by distance (ALiBi) and an attention past transformers' interface."""
OTHERS: dict[str, Callable[[], Any]] = {
    "t5": lambda: transformers.T5Config(
        vocab_size=len(WORDS), d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4, decoder_start_token_id=0
    ),
    "vit": lambda: transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64, image_size=16
    ),
    "mamba": lambda: transformers.MambaConfig(
        vocab_size=len(WORDS), hidden_size=32, state_size=8, num_hidden_layers=2, **ENDS
    ),
}
"""Models that do not fit, or that keep a running state instead of keys and values."""


def tiny(kind: str, folder: Path, **changes: Any) -> Path:
    """Save a model of this kind with its tokenizer to `folder` / `kind`, float32; the same weights every time.

    `changes` are set on the config before the weights are drawn.
    """
    config = {**DECODERS, **BIASED, **OTHERS}[kind]()
    for key, value in changes.items():
        setattr(config, key, value)
    torch.manual_seed(1)
    folder = folder / kind
    family = transformers.AutoModelForCausalLM
    if kind in OTHERS and kind != "mamba":
        family = transformers.AutoModel
    family.from_config(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE(vocab=WORDS, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    whole = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
    whole.save_pretrained(folder)
    return folder
