"""What was really loaded, read back from the modules: dtype, quantization, attention, device, bytes."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from engine.models.sharded import own, shares

TORCHAO = {
    "Int8Tensor": ("int8-weight-only", "int8-dynamic"),
    "Float8Tensor": ("fp8-weight-only", "fp8-dynamic"),
    "Int4TilePackedTo4dTensor": ("int4-weight-only", "int4-dynamic"),
    "Int4Tensor": ("int4-weight-only", "int4-dynamic"),
}
"""Kinds by the class of a torchao weight: activations as they are, and activations quantized too."""


def effective(model: Any) -> dict[str, Any]:
    """What a lane reports as loaded."""
    return {
        "dtype": _format(model.dtype),
        "quantization": quantization(model),
        "double_quantization": any(getattr(state, "nested", False) for state in _states(model)),
        "outlier_threshold": _shared(getattr(module.state, "threshold", None) for module in _eight_bits(model)),
        "compute_format": _shared(_format(module.compute_dtype) for module in _four_bits(model)),
        "attention": model.config._attn_implementation,
        "device": str(model.device),
        "tensor_parallel": shares(model),
    }


def quantization(model: Any) -> dict[str, Any] | None:
    """How the weights of the linear layers lie in memory; None where all are plain and came so.

    `class` of the layers (or of their weights), `kind`, how many `layers` are quantized `of` how many, and for torchao
    the `group` of weights that share a scale. The kind is "partly nf4" where layers other than the head stayed plain,
    and "none (dequantized from fp8)" where a quantized checkpoint was widened while loading.
    """
    layers = [module for module in model.modules() if _multiplies(module)]
    found = [(kind, name) for module in layers if (kind := _kind(module, model)) for name in [_class(module)]]
    came = getattr(model, "came_as", None)
    if not found:
        none = {"class": "Linear", "kind": f"none (dequantized from {came})", "layers": 0, "of": len(layers)}
        return none if came else None
    (kind, name), _ = Counter(found).most_common(1)[0]
    head = model.get_output_embeddings()
    plain = [module for module in layers if module is not head and _kind(module, model) != kind]
    group = _shared(_group(module.weight) for module in layers if _is_torchao(getattr(module, "weight", None)))
    said = {"class": name, "kind": f"partly {kind}" if plain else kind, "layers": len(found), "of": len(layers)}
    return said if group is None else {**said, "group": group}


def _eight_bits(model: Any) -> Iterator[Any]:
    return (module for module in model.modules() if type(module).__name__ == "Linear8bitLt")


def _four_bits(model: Any) -> Iterator[Any]:
    return (module for module in model.modules() if type(module).__name__ == "Linear4bit")


def _format(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _shared(values: Iterable[Any]) -> Any:
    """The value that all have; None where there are none, and what there is where they differ."""
    found = list(dict.fromkeys(values))
    return " and ".join(map(str, found)) if len(found) > 1 else next(iter(found), None)


def _states(model: Any) -> Iterator[Any]:
    """What bitsandbytes keeps beside its 4-bit weights."""
    return (getattr(weight, "quant_state", None) for weight in model.parameters())


def _multiplies(module: Any) -> bool:
    """Linear layers under any name, GPT-2's Conv1D, and the experts of a mixture, which are one block of weights."""
    name = type(module).__name__
    blocks = any(weight.dim() == 3 for weight in module.parameters(recurse=False))
    return "Linear" in name or name == "Conv1D" or (blocks and "Conv" not in name)


def _class(module: Any) -> str:
    weight = getattr(module, "weight", None)
    return type(weight).__name__ if _is_torchao(weight) else type(module).__name__


def _is_torchao(weight: Any) -> bool:
    return type(weight).__module__.startswith("torchao")


def _group(weight: Any) -> int | str | None:
    """How many weights of a torchao tensor [rows, columns] share a scale: a number, "a row", or "all".

    None for a class of tensors that does not say it.
    """
    rows, columns = getattr(weight, "block_size", None) or (None, None)
    if rows is None:
        return None
    if rows > 1:
        return "all"
    return columns if columns < weight.shape[-1] or _kind_of(weight)[0].startswith("int4") else "a row"


def _kind_of(weight: Any) -> tuple[str, str]:
    name = type(weight).__name__
    return TORCHAO.get(name, (name, name))


def _kind(module: Any, model: Any) -> str | None:
    """The kind of one layer; None where its weights are plain floating-point numbers of 16 bits or more."""
    weight = getattr(module, "weight", None)
    if _is_torchao(weight):
        still, dynamic = _kind_of(weight)
        return dynamic if getattr(weight, "act_quant_kwargs", None) is not None else still
    narrow = [t for t in _own(module) if t.dim() > 1 and not (t.is_floating_point() and t.element_size() > 1)]
    if not narrow:
        return None
    if getattr(weight, "quant_state", None) is not None:
        return weight.quant_type
    if type(module).__name__ == "Linear8bitLt":
        return "int8"
    return _came(model) or str(narrow[0].dtype).removeprefix("torch.")


def _own(module: Any) -> list[Any]:
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]


def _came(model: Any) -> str | None:
    """What the checkpoint says of itself, with its bits where it tells them: "gptq 4-bit"."""
    config = getattr(model.config, "quantization_config", None)
    table = config if isinstance(config, dict) else getattr(config, "__dict__", {})
    method, bits = getattr(model, "came_as", None), table.get("bits")
    return f"{method} {bits}-bit" if method and bits else method


def weights_bytes(model: Any) -> int:
    """Bytes of all weights, buffers and quantization constants that lie here; tied weights count once."""
    sizes = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in _tensors(model)}
    return sum(sizes.values())


def _tensors(model: Any) -> Iterator[Any]:
    from itertools import chain

    from torch import is_tensor

    for tensor in chain(model.parameters(), model.buffers()):
        yield from _inner(own(tensor))
        state = getattr(tensor, "quant_state", None)
        for part in (state, getattr(state, "state2", None)):
            yield from (value for value in vars(part or object).values() if is_tensor(value))
        if is_tensor(scales := getattr(tensor, "SCB", None)):
            yield scales


def _inner(tensor: Any) -> Iterator[Any]:
    """A torchao weight is made of plain tensors: narrow numbers and their scales."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from _inner(getattr(tensor, name))
