"""Checkpoints that come quantized: recognised before loading, and refused in a sentence where a library is missing."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engine.models.resolve import gguf_file
from engine.refusal import Refusal

LIBRARIES = {
    "aqlm": ("aqlm",),
    "auto-round": ("auto_round",),
    "awq": ("gptqmodel",),
    "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed_tensors",),
    "eetq": ("kernels",),
    "fbgemm_fp8": ("fbgemm_gpu",),
    "gguf": ("gguf",),
    "gptq": ("gptqmodel", "optimum"),
    "hqq": ("hqq",),
    "quanto": ("optimum.quanto",),
    "torchao": ("torchao",),
    "vptq": ("vptq",),
}
"""What transformers needs for a method beside itself. The others (fp8, mxfp4) are widened where nothing fits."""

PACKAGES = {"fbgemm_gpu": "fbgemm-gpu-genai"}
"""Where a package has another name than its module with hyphens."""


def method(config: dict[str, Any]) -> str | None:
    """How a checkpoint is quantized by its config.json: "gptq", "awq", "fp8", "gguf" ...; None where it is not.

    "unknown" is a checkpoint that is quantized and does not say how.
    """
    table = config.get("quantization_config") or (config.get("text_config") or {}).get("quantization_config")
    if not table:
        return None
    if table.get("load_in_4bit") or table.get("load_in_8bit"):
        return "bitsandbytes"
    return str(table.get("quant_method") or "unknown")


def check_method(config: dict[str, Any], name: str) -> None:
    """Raises Refusal unless the weights of this config can be read here."""
    came = method(config)
    if came is None:
        return
    if came not in _known():
        raise Refusal(
            f"{name} comes quantized by {came!r}, which transformers cannot read.", "Choose its unquantized original."
        )
    missing = [module for module in LIBRARIES.get(came, ()) if not _installed(module)]
    if missing:
        packages = " ".join(PACKAGES.get(module, module.replace("_", "-").replace(".", "-")) for module in missing)
        raise Refusal(
            f"{name} comes quantized by {came}, which needs a library that is not installed: pip install {packages}.",
            "Install it, or choose the unquantized original.",
        )


def _known() -> set[str]:
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING as KNOWN

    return {"bitsandbytes" if name.startswith("bitsandbytes") else name for name in KNOWN}


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False


def arguments(folder: Path, came: str | None, device: str) -> dict[str, Any]:
    """What `from_pretrained` must be told beyond the folder, for weights that came so.

    FP8 is widened unless this device multiplies it (compute capability 8.9) and the kernels are there; a GGUF file
    is widened always.
    """
    if came == "gguf":
        return {"gguf_file": gguf_file(folder).name, "use_safetensors": None, **_widened("GgufConfig")}
    if came in ("fp8", "mxfp8") and not _multiplies_fp8(device):
        return _widened("FineGrainedFP8Config")
    return {}


def _widened(name: str) -> dict[str, Any]:
    import transformers

    made = getattr(transformers, name, None)  # GgufConfig is younger than the oldest transformers that will do
    return {"quantization_config": made(dequantize=True)} if made else {}


def _multiplies_fp8(device: str) -> bool:
    import torch

    return device != "cpu" and torch.cuda.get_device_capability() >= (8, 9) and _installed("kernels")


def settle(model: Any, came: str | None) -> Any:
    """Remember how the weights came. compressed-tensors widens in the first forward pass: it is made now."""
    import torch

    model.came_as = came
    if came == "compressed-tensors":
        with torch.inference_mode():
            model(torch.zeros((1, 1), dtype=torch.long, device=model.device), use_cache=False)
    return model


def gguf_config(folder: Path) -> dict[str, Any]:
    """A config.json for the GGUF file of a folder, read from its header. Raises Refusal where that cannot be."""
    from transformers import AutoConfig

    file = gguf_file(folder)
    try:
        config = AutoConfig.from_pretrained(str(folder), gguf_file=file.name, local_files_only=True)
    except Exception as error:  # the reader raises whatever the bytes lead it to
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
        raise Refusal(
            f"The GGUF file {file.name} cannot be read: {line}.",
            "Choose a GGUF of an architecture that transformers knows.",
        ) from error
    return {**config.to_dict(), "quantization_config": {"quant_method": "gguf"}}
