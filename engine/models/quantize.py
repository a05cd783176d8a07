"""Weights in fewer bits: the linear layers of a loaded model are quantized in place, one after another."""

from collections.abc import Callable
from typing import Any

from engine.refusal import Refusal

KINDS = {
    "bitsandbytes": ("int8", "nf4", "fp4"),
    "torchao": ("int8-weight-only", "int8-dynamic", "fp8-weight-only", "fp8-dynamic", "int4-weight-only"),
}
Layer = Callable[[Any], Any]


def check(settings: dict[str, Any]) -> None:
    """Raises Refusal for a quantization that no library here has."""
    library, kind = settings.get("library"), settings.get("kind")
    if kind not in KINDS.get(library, ()):
        there = "; ".join(f"{name} has {', '.join(kinds)}" for name, kinds in KINDS.items())
        raise Refusal(f"There is no quantization {kind!r} of {library!r}.", f"{there}.")


def quantize(model: Any, settings: dict[str, Any], device: str) -> None:
    """Quantize every linear layer of `model` but its head, then put the whole model on `device`.

    `settings` is `Plan.quantization`: `library` and `kind`, and for bitsandbytes `threshold` (int8), `double` and
    `compute` (4 bits), for torchao `group` (int4). Layers travel one at a time, so a device never holds more than
    one layer in its first width. The head stays as it is: it is often the embedding too, and the most sensitive.
    """
    convert = LIBRARIES[settings["library"]](settings, model.dtype)
    for name in names(model):
        model.set_submodule(name, convert(_linear(model.get_submodule(name))).to(device))
    model.to(device).eval()
    if device == "cpu":
        own(model)


def own(model: Any) -> None:
    """Copy what stayed as it is out of the file's mapping, which else keeps all of the file in memory."""
    from torch.nn import Parameter

    for weight in model.parameters():
        if type(weight) is Parameter:
            weight.data = weight.data.clone()


def names(model: Any) -> list[str]:
    """The names of the layers that are quantized: every Linear, and every Conv1D (GPT-2), but the output head."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return [name for name, module in model.named_modules() if type(module) in (Linear, Conv1D) and module is not head]


def _linear(layer: Any) -> Any:
    """The same layer as a Linear: a Conv1D keeps its weight transposed, and the libraries know Linear only."""
    from torch import device
    from torch.nn import Linear, Parameter

    if type(layer) is Linear:
        return layer
    with device("meta"):
        new = Linear(*layer.weight.shape)
    new.weight = Parameter(layer.weight.data.t().contiguous(), requires_grad=False)
    new.bias = layer.bias
    return new


def _bitsandbytes(settings: dict[str, Any], dtype: Any) -> Layer:
    import torch

    if settings["kind"] == "int8":
        return lambda old: _eight_bits(old, settings.get("threshold", 6.0))
    asked = settings.get("compute", "auto")
    compute = dtype if asked == "auto" else getattr(torch, asked)
    return lambda old: _four_bits(old, settings["kind"], settings.get("double", False), compute)


def _eight_bits(old: Any, threshold: float) -> Any:
    import torch
    from bitsandbytes.nn import Int8Params, Linear8bitLt

    with torch.device("meta"):
        new = Linear8bitLt(**_shape(old), has_fp16_weights=False, threshold=threshold)
    # only a weight that comes from the CPU is quantized on its way
    new.weight = Int8Params(old.weight.data.cpu(), requires_grad=False, has_fp16_weights=False)
    new.bias = old.bias
    return new


def _four_bits(old: Any, kind: str, double: bool, compute: Any) -> Any:
    import torch
    from bitsandbytes.nn import Linear4bit, Params4bit

    with torch.device("meta"):
        new = Linear4bit(**_shape(old), compute_dtype=compute, quant_type=kind)
    new.weight = Params4bit(old.weight.data, requires_grad=False, quant_type=kind, compress_statistics=double)
    new.bias = old.bias
    return new


def _shape(old: Any) -> dict[str, Any]:
    return {"input_features": old.in_features, "output_features": old.out_features, "bias": old.bias is not None}


def _torchao(settings: dict[str, Any], dtype: Any) -> Layer:
    from torchao.quantization import quantize_

    config = _config(settings)

    def convert(layer: Any) -> Any:
        if settings["kind"].startswith(("int4", "fp8-dynamic")):  # their packing runs on the GPU
            layer = layer.to("cuda")
        quantize_(layer, config, filter_fn=lambda module, name: module is layer)
        return layer

    return convert


def _config(settings: dict[str, Any]) -> Any:
    """torchao's configuration; what it would set for inductor and for float32 products is left to the plan."""
    import torchao.quantization as ao

    common = {"set_inductor_config": False}
    match settings["kind"]:
        case "int8-weight-only":
            return ao.Int8WeightOnlyConfig(**common)
        case "int8-dynamic":
            return ao.Int8DynamicActivationInt8WeightConfig(**common)
        case "fp8-weight-only":
            return ao.Float8WeightOnlyConfig(**common)
        case "fp8-dynamic":
            return ao.Float8DynamicActivationFloat8WeightConfig(granularity=ao.PerRow(), **common)
    tiles = "tile_packed_to_4d"
    return ao.Int4WeightOnlyConfig(group_size=settings.get("group", 64), int4_packing_format=tiles, **common)


LIBRARIES: dict[str, Callable[[dict[str, Any], Any], Layer]] = {"bitsandbytes": _bitsandbytes, "torchao": _torchao}
