"""A Llama model in GGUF becomes a folder that transformers loads: bfloat16 safetensors, config, tokenizer."""

import json
from pathlib import Path
from typing import Any

LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
CONTROL = 3  # gguf's TokenType.CONTROL: a special token


def convert(gguf: Path, folder: Path, architecture: dict[str, Any]) -> None:
    """Write model.safetensors, config.json, generation_config.json and the tokenizer's files into `folder`.

    `architecture` is the config of the same model; the GGUF must agree with it, else ValueError.
    """
    from gguf import GGUFReader

    reader = GGUFReader(gguf)
    _agree(reader, architecture)
    _write_weights(reader, folder / "model.safetensors", architecture)
    write_config(folder, architecture)
    _write_tokenizer(reader, folder)


def _field(reader: Any, name: str) -> Any:
    return reader.fields[name].contents()


def _agree(reader: Any, architecture: dict[str, Any]) -> None:
    pairs = {
        "block_count": "num_hidden_layers",
        "embedding_length": "hidden_size",
        "feed_forward_length": "intermediate_size",
        "attention.head_count": "num_attention_heads",
        "attention.head_count_kv": "num_key_value_heads",
        "context_length": "max_position_embeddings",
        "vocab_size": "vocab_size",
    }
    for theirs, ours in pairs.items():
        found = _field(reader, f"llama.{theirs}")
        if found != architecture[ours]:
            raise ValueError(f"the GGUF has {theirs} {found}, the catalogue {ours} {architecture[ours]}")


def _write_weights(reader: Any, path: Path, architecture: dict[str, Any]) -> None:
    import torch
    from gguf.quants import dequantize
    from safetensors.torch import save_file

    weights = {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        if heads := _permuted(tensor.name, architecture):
            values = _unpermute(values, heads)
        weights[_name(tensor.name)] = torch.tensor(values).to(torch.bfloat16)
    save_file(weights, path, metadata={"format": "pt"})


def _permuted(name: str, architecture: dict[str, Any]) -> int | None:
    if ".attn_q." in name:
        return architecture["num_attention_heads"]
    return architecture["num_key_value_heads"] if ".attn_k." in name else None


def _unpermute(values: Any, heads: int) -> Any:
    # llama.cpp interleaves the two halves of each rotary pair, transformers keeps them apart
    rows, columns = values.shape
    return values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _name(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if not stem.startswith("blk."):
        return f"{TOP[stem]}.{kind}"
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{LAYER[part]}.{kind}"


def write_config(folder: Path, architecture: dict[str, Any]) -> None:
    """Write config.json and generation_config.json for weights in bfloat16."""
    ends = {key: architecture[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_json(folder / "config.json", {**architecture, "dtype": "bfloat16", "use_cache": True})
    write_json(folder / "generation_config.json", ends)


def write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, ensure_ascii=False, indent=1), "utf-8")


def _write_tokenizer(reader: Any, folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens = _field(reader, "tokenizer.ggml.tokens")
    merges = [tuple(pair.split(" ")) for pair in _field(reader, "tokenizer.ggml.merges")]
    kinds = _field(reader, "tokenizer.ggml.token_type")
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    # "smollm" in llama.cpp: every digit stands alone, then GPT-2's byte-level split
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", _tokenizer_config(reader, tokens))


def _tokenizer_config(reader: Any, tokens: list[str]) -> dict[str, Any]:
    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    named = {
        f"{role}_token": tokens[_field(reader, f"tokenizer.ggml.{theirs}_token_id")] for role, theirs in roles.items()
    }
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": _field(reader, "llama.context_length"),
        "clean_up_tokenization_spaces": False,
        "padding_side": "left",
        "chat_template": _field(reader, "tokenizer.chat_template"),
        **named,
    }
