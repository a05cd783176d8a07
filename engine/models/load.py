"""From a folder to a tokenizer and a model in memory, and what was really loaded."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.models import noise
from engine.models.resolve import Source, check_folder
from engine.plan import Plan
from engine.refusal import Refusal

LOCAL = {"local_files_only": True, "trust_remote_code": False, "token": False}
KINDS = ("int8", "nf4", "fp4")


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder, padding on the left, with a pad token. Raises Refusal if there is none."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **LOCAL)
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
    """The folder's config.json. Raises Refusal if it is missing or no JSON table."""
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


def load_model(source: Source, folder: Path, plan: Plan, phase: Callable[[str], None] = lambda name: None) -> Any:
    """The model on its device, in eval mode, as `plan` asks (dtype, device, attention, quantization).

    `plan.quantization` is None or {"library": "bitsandbytes", "kind": "int8" | "nf4" | "fp4"} with the options
    `threshold` (int8) and `double` (4 bits). `phase` hears of stages with a cost of their own. Raises Refusal
    for what cannot be loaded, before any weight is read where that can be known.
    """
    import torch
    from safetensors import SafetensorError

    _hush()
    config = read_config(folder)
    check_config(config, source.name)
    if plan.quantization and config.get("quantization_config"):
        raise Refusal(f"{source.name} is quantized already.", "Switch quantization off, or choose its original.")
    make = _random if source.kind == "random" else _pretrained
    try:
        dtype = getattr(torch, plan.dtype)
        model = make(folder, dtype, plan.device, plan.attention, _known(plan.quantization))
    except (ImportError, ValueError, KeyError, NotImplementedError, OSError, SafetensorError) as error:
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


def _known(quantization: dict[str, Any] | None) -> dict[str, Any] | None:
    if quantization and (quantization.get("library"), quantization.get("kind") in KINDS) != (
        "bitsandbytes",
        True,
    ):
        raise Refusal(f"There is no quantization {quantization}.", f"bitsandbytes has {', '.join(KINDS)}.")
    return quantization


def _pretrained(folder: Path, dtype: Any, device: str, attention: str, quantization: dict | None) -> Any:
    from transformers import AutoModelForCausalLM

    check_folder(folder)
    extra = {"quantization_config": _bitsandbytes(quantization, dtype)} if quantization else {}
    return AutoModelForCausalLM.from_pretrained(
        str(folder),
        dtype=dtype,
        attn_implementation=attention,
        device_map={"": device},
        use_safetensors=True,
        **LOCAL,
        **extra,
    )


def _bitsandbytes(quantization: dict[str, Any], dtype: Any) -> Any:
    from transformers import BitsAndBytesConfig

    if quantization["kind"] == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=float(quantization.get("threshold", 6.0)))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization["kind"],
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_use_double_quant=quantization.get("double", False),
    )


def _random(folder: Path, dtype: Any, device: str, attention: str, quantization: dict | None) -> Any:
    from transformers import AutoConfig, GenerationConfig

    config = AutoConfig.from_pretrained(str(folder), **LOCAL)
    model = noise.build(config, dtype, device, attention)
    model.generation_config = GenerationConfig.from_pretrained(str(folder))
    if quantization:
        noise.quantize(model, quantization["kind"], quantization, dtype, device)
    return model


def effective(model: Any) -> dict[str, Any]:
    """What was really loaded, read from the modules: dtype, quantization, attention and device."""
    return {
        "dtype": str(model.dtype).removeprefix("torch."),
        "quantization": _found(model),
        "attention": model.config._attn_implementation,
        "device": str(model.device),
    }


def _found(model: Any) -> dict[str, Any] | None:
    """The class of the quantized linear layers, their kind, and how many of all linear layers they are."""
    linears = [module for module in model.modules() if "Linear" in type(module).__name__]
    special = [module for module in linears if type(module).__name__ != "Linear"]
    if not special:
        return None
    name, count = Counter(type(module).__name__ for module in special).most_common(1)[0]
    kinds = {getattr(module.weight, "quant_type", None) for module in special if hasattr(module, "weight")}
    kind = "int8" if name == "Linear8bitLt" else next((kind for kind in kinds if kind), None)
    return {"class": name, "kind": kind, "layers": count, "of": len(linears)}


def weights_bytes(model: Any) -> int:
    """Bytes of all weights, buffers and quantization constants; tied weights count once."""
    sizes = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in _tensors(model)}
    return sum(sizes.values())


def _tensors(model: Any) -> Iterator[Any]:
    from itertools import chain

    from torch import is_tensor

    for tensor in chain(model.parameters(), model.buffers()):
        yield tensor
        state = getattr(tensor, "quant_state", None)
        for part in (state, getattr(state, "state2", None)):
            yield from (value for value in vars(part or object).values() if is_tensor(value))
        if is_tensor(scales := getattr(tensor, "SCB", None)):
            yield scales


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return line if line.endswith(".") else f"{line}."
