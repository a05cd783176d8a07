"""Small checkpoints as their tools write them: quantized ones, and a GGUF file."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, TorchAoConfig

BLOCK = 128
GROUP = 32
"""Weights of a row that share a scale and a zero point in GPTQ's and AWQ's layers."""
NIBBLES = range(8)
AWQ_NIBBLES = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight neighbours lies in each 4 bits of a word, lowest first. AWQ keeps even and odd ones apart."""


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


def gptq(source: Path, folder: Path) -> None:
    """4 bits with a scale and a zero point a group, eight inputs to a word; zero points are kept one lower.

    Weights are rounded to the nearest, as only the layout is GPTQ's here. `backend` names the kernel that needs no
    compiler.
    """
    weights = _loaded(source)
    for stem, (whole, zero, scale) in _four_bits(weights):
        weights[f"{stem}.qweight"] = _words(whole, NIBBLES).T.contiguous()
        weights[f"{stem}.qzeros"] = _words(zero.T - 1 & 15, NIBBLES)
        weights[f"{stem}.scales"] = scale.T.contiguous()
        weights[f"{stem}.g_idx"] = torch.arange(whole.shape[1], dtype=torch.int32) // GROUP
    said = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": False}
    _write(source, folder, weights, {**said, "checkpoint_format": "gptq", "backend": "torch"})


def awq(source: Path, folder: Path) -> None:
    """The same numbers as `gptq` writes, eight outputs to a word."""
    weights = _loaded(source)
    for stem, (whole, zero, scale) in _four_bits(weights):
        weights[f"{stem}.qweight"] = _words(whole.T, AWQ_NIBBLES)
        weights[f"{stem}.qzeros"] = _words(zero.T, AWQ_NIBBLES)
        weights[f"{stem}.scales"] = scale.T.contiguous()
    said = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}
    _write(source, folder, weights, {**said, "backend": "torch_awq"})


def widened(source: Path, folder: Path) -> None:
    """A plain checkpoint of the numbers that `gptq` and `awq` pack."""
    weights = _loaded(source)
    for stem, (whole, zero, scale) in _four_bits(weights):
        exact = (whole - zero.repeat_interleave(GROUP, 1)) * scale.repeat_interleave(GROUP, 1)
        weights[f"{stem}.weight"] = exact.contiguous()
    _write(source, folder, weights, None)


def _four_bits(weights: dict[str, torch.Tensor]) -> Iterator[tuple[str, tuple[torch.Tensor, ...]]]:
    """Takes each projection [rows, columns] out of `weights`: numbers of 0 to 15, a group's zero points and scales."""
    for name in [name for name in weights if name.endswith("proj.weight")]:
        groups = weights.pop(name).unflatten(1, (-1, GROUP))
        least, most = groups.amin(2).clamp(max=0), groups.amax(2).clamp(min=0)
        scale = ((most - least) / 15).half()
        zero = (-least / scale).round().clamp(0, 15)
        whole = (groups / scale[..., None] + zero[..., None]).round().clamp(0, 15)
        yield name.removesuffix(".weight"), (whole.flatten(1).int(), zero.int(), scale)


def _words(numbers: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
    """Numbers of 4 bits [rows, columns] as words of 32 bits [rows, columns / 8]."""
    eight = numbers.unflatten(1, (-1, 8)).long()
    word = sum(eight[..., one] << 4 * place for place, one in enumerate(order))
    return torch.where(word < 2**31, word, word - 2**32).int().contiguous()


def fp8(source: Path, folder: Path) -> None:
    """8-bit floats with a scale for each block of 128 by 128, as DeepSeek publishes them."""
    weights = _loaded(source)
    for name in [name for name in weights if name.endswith("proj.weight")]:
        rows, columns = weights[name].shape
        blocks = weights[name].reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
        scale = blocks.abs().amax((1, 3), keepdim=True) / 448
        weights[name] = (blocks / scale).reshape(rows, columns).to(torch.float8_e4m3fn)
        weights[f"{name}_scale_inv"] = scale[:, 0, :, 0].contiguous()
    said = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [BLOCK, BLOCK]}
    _write(source, folder, weights, said)


def _loaded(source: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(source / "model.safetensors")


def _write(source: Path, folder: Path, weights: dict[str, torch.Tensor], said: dict[str, object] | None) -> None:
    """A copy of the folder with other weights and, where it is `said`, how they are quantized."""
    from safetensors.torch import save_file

    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text("utf-8"))
    told = {"quantization_config": said} if said else {}
    (folder / "config.json").write_text(json.dumps({**config, **told}), "utf-8")


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
