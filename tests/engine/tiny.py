"""Tiny models of random weights, one for each architecture that the rewrites are held to."""

from collections.abc import Callable
from typing import Any

import torch
import transformers

VOCABULARY = 97
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 48, "intermediate_size": 88, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "initializer_range": 0.3, "tie_word_embeddings": False, "eos_token_id": 0, "pad_token_id": 0, "bos_token_id": 0,
}  # fmt: skip
GPT2 = {
    "vocab_size": VOCABULARY, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 256,
    "initializer_range": 0.3, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
OPT = {
    "vocab_size": VOCABULARY, "hidden_size": 48, "word_embed_proj_dim": 48, "ffn_dim": 88, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 256, "init_std": 0.3,
    "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
HEADS = {**SHAPE, "head_dim": 16}
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(**SHAPE),
    "llama-biased": lambda: transformers.LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True),
    "mistral": lambda: transformers.MistralConfig(**SHAPE, sliding_window=None),
    "qwen2": lambda: transformers.Qwen2Config(**SHAPE),
    "qwen3": lambda: transformers.Qwen3Config(**HEADS),
    "gemma2": lambda: transformers.Gemma2Config(**HEADS, sliding_window=64),
    "gemma3": lambda: transformers.Gemma3TextConfig(**HEADS, sliding_window=64),
    "gpt2": lambda: transformers.GPT2Config(**GPT2),
    "opt": lambda: transformers.OPTConfig(**OPT),
}


def tiny(name: str, seed: int = 1, **changes: Any) -> Any:
    """A model in eval mode, float32 on the CPU; the same weights for the same seed."""
    config = CONFIGS[name]()
    for key, value in changes.items():
        setattr(config, key, value)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if key.endswith("bias"):
                weight.normal_(0, 0.3)
    return model


def prompts(lengths: tuple[int, ...], seed: int = 3) -> tuple[tuple[int, ...], ...]:
    """Random token ids of these lengths."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        tuple(torch.randint(1, VOCABULARY, (length,), generator=generator).tolist()) for length in lengths
    )
