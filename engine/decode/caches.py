"""Which cache a plan asks for, made for a model."""

from typing import Any

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from engine.decode.quantized import QuantizedLayer
from engine.decode.stepper import keep_all
from engine.plan import Plan


def growing_cache(config: Any, plan: Plan) -> DynamicCache:
    """A cache that grows with the text: plain, packed in few bits, or kept in the host's memory between layers.

    Layers that see a sliding window drop what leaves it, unless speculation may want tokens back. They are small
    and stay as the model computes them, so packing is for the other layers only.
    """
    if plan.offload:
        return DynamicCache(config=config, offloading=True)
    cache = DynamicCache(config=config)
    if plan.kv_bits:
        cache.layers = [_packed(layer, plan.kv_bits) for layer in cache.layers]
    elif plan.speculation:
        return keep_all(config)
    return cache


def _packed(layer: Any, knobs: dict[str, Any]) -> Any:
    """In the place of a layer that keeps everything, one that packs; any other layer as it is."""
    return QuantizedLayer(knobs["keys"], knobs["values"], knobs["group"]) if type(layer) is DynamicLayer else layer
