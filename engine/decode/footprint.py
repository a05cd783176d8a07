"""What keys and values take: predicted from a model's architecture, and counted in the tensors of a real cache."""

from typing import Any

import torch
from transformers import Cache, StaticCache
from transformers.cache_utils import DynamicLayer

from engine.decode.quantized import QuantizedLayer, packable, packed_bytes, values_group
from engine.models.architecture import Architecture


def kv_bytes(cache: Cache | None) -> int:
    """Bytes of the keys and values that a transformers cache holds."""
    return sum(layer_bytes(layer) for layer in cache.layers) if cache else 0


def layer_bytes(layer: Any) -> int:
    """Bytes of what one layer of a cache holds, packed keys and values with their scales included."""
    tensors = getattr(layer, "tensors", None) or (getattr(layer, "keys", None), getattr(layer, "values", None))
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if torch.is_tensor(tensor))


def kind(cache: Cache | None) -> str:
    """off, dynamic, static or window: what the layers are, whatever the cache calls itself."""
    if cache is None:
        return "off"
    if isinstance(cache, StaticCache):
        return "static"
    return "window" if any(hasattr(layer, "sinks") for layer in cache.layers) else "dynamic"


def footprint(cache: Cache | None, shape: Architecture, length: int) -> dict[str, Any]:
    """The cache after `length` tokens in each row: its kind, bytes and places for tokens.

    `predicted_bytes_per_token` follows from the architecture alone, `bytes_per_token` from the tensors. Both are
    means over all places, since a layer with a window of its own has fewer of them.
    """
    if cache is None or not length:
        return {"kind": kind(cache), "bytes": 0, "tokens": 0}
    places = [_room(layer, length) for layer in cache.layers]
    some = next(layer.keys for layer in cache.layers if torch.is_tensor(layer.keys))
    rows, size = some.shape[0], some.element_size()
    tokens = rows * max(places)
    predicted = rows * sum(
        _predicted(layer, shape, place, size) for layer, place in zip(cache.layers, places, strict=True)
    )
    return {
        "kind": kind(cache),
        "bytes": kv_bytes(cache),
        "tokens": tokens,
        "bytes_per_token": kv_bytes(cache) / tokens,
        "predicted_bytes_per_token": predicted / tokens,
    }


def bits(cache: Cache | None) -> str | None:
    """Bits of keys and values in the layers that pack them, such as 8/4; None where nothing is packed.

    "partly 8/4" where a layer that keeps all its tokens is not packed; those that slide stay as they are.
    """
    layers = cache.layers if cache else []
    packed = [layer for layer in layers if isinstance(layer, QuantizedLayer)]
    if not packed:
        return None
    plain = any(type(layer) is DynamicLayer for layer in layers)
    return f"{'partly ' if plain else ''}{'/'.join(map(str, packed[0].bits))}"


def group(cache: Cache | None) -> int | str | None:
    """Numbers that share a scale in the layers that pack them; "32 and 64" where layers differ."""
    layers = cache.layers if cache else []
    found = sorted({size for layer in layers if isinstance(layer, QuantizedLayer) for size in layer.groups()})
    return " and ".join(map(str, found)) if len(found) > 1 else next(iter(found), None)


def window(cache: Cache | None) -> int | None:
    """The window that all layers have, with sinks beside it; None where one of them keeps everything."""
    found = {layer.window if hasattr(layer, "sinks") else None for layer in cache.layers} if cache else {None}
    return found.pop() if len(found) == 1 else None


def sinks(cache: Cache | None) -> int | None:
    """The first tokens that all layers keep beside their window; None where there is no such window."""
    found = {getattr(layer, "sinks", None) for layer in cache.layers} if cache else {None}
    return found.pop() if len(found) == 1 else None


def _room(layer: Any, length: int) -> int:
    if hasattr(layer, "room"):
        return layer.room
    if hasattr(layer, "max_cache_len"):
        return layer.max_cache_len
    return min(length, layer.sliding_window - 1) if layer.is_sliding else length


def _predicted(layer: Any, shape: Architecture, places: int, size: int) -> float:
    numbers = shape.kept_heads * shape.head_dim
    if not isinstance(layer, QuantizedLayer):
        return 2 * places * numbers * size
    older = packable(places, layer.group)
    keys = packed_bytes(layer.bits[0], layer.group, size)
    values = packed_bytes(layer.bits[1], values_group(layer.group, shape.head_dim), size)
    return numbers * (older * (keys + values) + 2 * (places - older) * size)
