"""Small checkpoints as their tools write them: quantized ones, and a GGUF file."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, TorchAoConfig

BLOCK = 128


def plain(folder: Path) -> Path:
    """A Llama whose layers are as wide as the blocks of fine-grained FP8."""
    torch.manual_seed(1)
    size = {"hidden_size": BLOCK, "intermediate_size": 2 * BLOCK, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=64, max_position_embeddings=128, tie_word_embeddings=False, **size)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def bitsandbytes(source: Path, folder: Path) -> None:
    quantized = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    AutoModelForCausalLM.from_pretrained(source, quantization_config=quantized).save_pretrained(folder)


def torchao(source: Path, folder: Path) -> None:
    from torchao.quantization import Int8WeightOnlyConfig

    quantized = TorchAoConfig(Int8WeightOnlyConfig())
    AutoModelForCausalLM.from_pretrained(source, quantization_config=quantized).save_pretrained(folder)


def compressed_tensors(source: Path, folder: Path) -> None:
    """int8 weights with a scale for each row, packed into 32-bit words."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config

    model = AutoModelForCausalLM.from_pretrained(source)
    weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    scheme = {"config_groups": groups, "ignore": ["lm_head"], "format": "pack-quantized"}
    apply_quantization_config(model, QuantizationConfig.model_validate({**scheme, "quantization_status": "frozen"}))
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            module.weight_scale.data = module.weight.abs().amax(1, keepdim=True) / 127
    compressor = ModelCompressor.from_pretrained_model(model, quantization_format="pack-quantized")
    compressor.compress_model(model)
    model.save_pretrained(folder, state_dict=model.state_dict())
    compressor.update_config(str(folder))


def fp8(source: Path, folder: Path) -> None:
    """8-bit floats with a scale for each block of 128 by 128, as DeepSeek publishes them."""
    from safetensors.torch import load_file, save_file

    weights = load_file(source / "model.safetensors")
    for name in [name for name in weights if name.endswith("proj.weight")]:
        rows, columns = weights[name].shape
        blocks = weights[name].reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
        scale = blocks.abs().amax((1, 3), keepdim=True) / 448
        weights[name] = (blocks / scale).reshape(rows, columns).to(torch.float8_e4m3fn)
        weights[f"{name}_scale_inv"] = scale[:, 0, :, 0].contiguous()
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    said = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [BLOCK, BLOCK]}
    config = json.loads((source / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": said}), "utf-8")


QUANTIZED: dict[str, Callable[[Path, Path], None]] = {
    "bitsandbytes": bitsandbytes,
    "torchao": torchao,
    "compressed-tensors": compressed_tensors,
    "fp8": fp8,
}


def gguf(source: Path, file: Path) -> None:
    """The same Llama as a GGUF file with 8-bit weights and a tokenizer of single bytes."""
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize
    from tokenizers import pre_tokenizers

    from engine.models.convert import LAYER, TOP

    model = AutoModelForCausalLM.from_pretrained(source)
    config, writer = model.config, GGUFWriter(file, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    words = ["<unk>", "<s>", "</s>", "+,", *sorted(pre_tokenizers.ByteLevel.alphabet())][: config.vocab_size]
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(words)
    writer.add_token_merges(["+ ,"])
    writer.add_token_types([3, 3, 3] + [1] * (len(words) - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    theirs = {ours: name for name, ours in (*LAYER.items(), *TOP.items())}
    for name, weight in model.state_dict().items():
        stem = name.removesuffix(".weight")
        layer = stem.split(".")[2] if "layers" in stem else None
        stem = f"blk.{layer}.{theirs[stem.split('.', 3)[3]]}" if layer else theirs[stem]
        values = weight.numpy().astype(np.float32)
        if ".attn_q" in stem or ".attn_k" in stem:  # llama.cpp interleaves the halves of each rotary pair
            values = values.reshape(config.num_attention_heads, 2, -1, values.shape[1]).swapaxes(1, 2)
            values = np.ascontiguousarray(values.reshape(weight.shape))
        if values.ndim == 1:
            writer.add_tensor(f"{stem}.weight", values)
        else:
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(f"{stem}.weight", quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
