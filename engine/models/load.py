"""From a folder to a tokenizer and a model in memory."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.models import checkpoint, noise, quantize
from engine.models.effective import effective, weights_bytes
from engine.models.resolve import Source, check_folder, gguf_file
from engine.models.sharded import load_sharded
from engine.plan import Plan
from engine.refusal import Refusal

LOCAL = {"local_files_only": True, "trust_remote_code": False, "token": False}
READABLE = 200
"""Letters of a library's message that are told."""

__all__ = ["check_config", "effective", "load_model", "load_tokenizer", "read_config", "weights_bytes"]


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder, padding on the left, with a pad token. Raises Refusal if there is none."""
    from transformers import AutoTokenizer

    _hush()
    file = gguf_file(folder)
    inside = {"gguf_file": file.name} if file and not (folder / "tokenizer.json").is_file() else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **LOCAL, **inside)
    except Exception as error:  # transformers and tokenizers raise a dozen types for a file that does not fit
        raise Refusal(
            f"The tokenizer of {Path(folder).name} cannot be loaded: {_first_line(error)}",
            "Put the files that the tokenizer's save_pretrained writes beside the weights.",
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json, or what its GGUF file says. Raises Refusal if it is missing or no JSON table."""
    if gguf_file(folder):
        return checkpoint.gguf_config(folder)
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise Refusal(
            f"The config.json of {folder.name} cannot be read: {_first_line(error)}", "Fetch the model again."
        ) from None
    if not isinstance(config, dict) or "model_type" not in config:
        raise Refusal(f"The config.json of {folder.name} names no model_type.", "Name a model of transformers.")
    return config


def check_config(config: dict[str, Any], name: str) -> None:
    """Raises Refusal unless transformers, without code of the repository, can generate text with it."""
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING:
        why = "brings its own code, which Pitlane never runs" if "auto_map" in config else "is new to transformers"
        raise Refusal(f"The architecture {kind!r} of {name} {why}.", "Choose a model that transformers knows.")
    made = CAUSAL.get(kind, ())
    classes = {made} if isinstance(made, str) else set(made)
    asked = set(config.get("architectures") or classes)
    if config.get("is_encoder_decoder") or not asked & classes:
        what = "an encoder-decoder model" if config.get("is_encoder_decoder") else "no text generator"
        raise Refusal(f"{name} is {what} ({kind}).", "Choose a decoder-only language model.")
    checkpoint.check_method(config, name)


def load_model(source: Source, folder: Path, plan: Plan, phase: Callable[[str], None] = lambda name: None) -> Any:
    """The model on its device, in eval mode, as `plan` asks (dtype, device, attention, quantization).

    Weights are loaded whole and then quantized, so that both have a cost of their own: `phase` hears "quantize"
    when loading is done. Raises Refusal for what cannot be loaded, before any weight is read where that can be known.
    """
    from safetensors import SafetensorError

    _hush()
    config = read_config(folder)
    check_config(config, source.name)
    came = checkpoint.method(config)
    if plan.quantization:
        quantize.check(plan.quantization)
        if came:
            raise Refusal(f"{source.name} is quantized already.", "Switch quantization off, or choose its original.")
    try:
        model = checkpoint.settle(_made(source, folder, plan, came), came)
        if plan.quantization:
            phase("quantize")
            quantize.quantize(model, plan.quantization, plan.device)
    except (ImportError, ValueError, KeyError, AssertionError, NotImplementedError, OSError, SafetensorError) as error:
        raise Refusal(
            f"{source.name} cannot be loaded like this: {_first_line(error)}",
            "Change the lane, or the model.",
        ) from error
    return model.eval()


def _hush() -> None:
    import logging

    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    # bitsandbytes logs a line for every int8 product in another dtype than float16, which takes time as well
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _made(source: Source, folder: Path, plan: Plan, came: str | None) -> Any:
    if plan.tensor_parallel > 1:
        return load_sharded(source, folder, plan, LOCAL)
    return _random(folder, plan) if source.kind == "random" else _pretrained(folder, plan, came)


def _pretrained(folder: Path, plan: Plan, came: str | None) -> Any:
    """Weights that will be quantized wait in the host's memory: the device need not hold them in full width."""
    import torch
    from transformers import AutoModelForCausalLM

    check_folder(folder)
    settings = {
        "dtype": getattr(torch, plan.dtype),
        "attn_implementation": plan.attention,
        "device_map": {"": "cpu" if plan.quantization else plan.device},
        "use_safetensors": True,
        **LOCAL,
        **checkpoint.arguments(folder, came, plan.device),
    }
    return AutoModelForCausalLM.from_pretrained(str(folder), **settings)


def _random(folder: Path, plan: Plan) -> Any:
    import torch
    from transformers import AutoConfig, GenerationConfig

    config = AutoConfig.from_pretrained(str(folder), **LOCAL)
    model = noise.build(config, getattr(torch, plan.dtype), plan.device, plan.attention)
    model.generation_config = GenerationConfig.from_pretrained(str(folder))
    return model


def _first_line(error: Exception) -> str:
    """The sentences at the beginning of a message that are not too long to read."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if len(line) > READABLE:
        line = line[:READABLE].rpartition(". ")[0] or line[:READABLE]
    return line if line.endswith(".") else f"{line}."
