"""Which cache a plan asks for, made for a model."""

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from engine.decode.quantized import QuantizedLayer
from engine.decode.stepper import keep_all
from engine.plan import Plan


class Offloaded(DynamicCache):
    """Keys and values lie in the host's memory, and each layer's come back while the layer before it computes."""

    def __init__(self, config: Any):
        super().__init__(config=config, offloading=True)

    def update(self, key_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """What is fetched must have arrived at the host before: transformers 5.17 does not wait, and reads too soon."""
        self.prefetch_stream.wait_stream(torch.cuda.current_stream(key_states.device))
        return super().update(key_states, *args, **kwargs)


def offloaded(cache: Any) -> bool:
    """Whether keys and values really lie in the host's memory, all but those of a layer that is being fetched."""
    kept = [layer.keys for layer in getattr(cache, "layers", ()) if torch.is_tensor(getattr(layer, "keys", None))]
    away = sum(keys.device.type == "cpu" for keys in kept)
    return bool(kept) and getattr(cache, "offloading", False) and away >= max(1, len(kept) - 1)


def growing_cache(config: Any, plan: Plan) -> DynamicCache:
    """A cache that grows with the text: plain, packed in few bits, or kept in the host's memory between layers.

    Layers that see a sliding window drop what leaves it, unless speculation may want tokens back. They are small
    and stay as the model computes them, so packing is for the other layers only.
    """
    if plan.offload:
        return Offloaded(config)
    cache = DynamicCache(config=config)
    if plan.kv_bits:
        cache.layers = [_packed(layer, plan.kv_bits) for layer in cache.layers]
    elif plan.speculation:
        return keep_all(config)
    return cache


def _packed(layer: Any, knobs: dict[str, Any]) -> Any:
    """In the place of a layer that keeps everything, one that packs; any other layer as it is."""
    return QuantizedLayer(knobs["keys"], knobs["values"], knobs["group"]) if type(layer) is DynamicLayer else layer
