"""Static caches of models with a sliding attention window, where the window is never reached."""

from typing import Any

from transformers import StaticCache
from transformers.cache_utils import StaticLayer


def static_cache(config: Any, length: int) -> StaticCache:
    """A static cache of `length` tokens for a model of this config.

    A layer whose attention window holds all `length` tokens never slides, so it becomes a plain layer: its
    position is then a tensor on the device. transformers keeps the position of a sliding layer in Python,
    which makes a compiled step compile again for every token and cannot be recorded in a CUDA graph.
    """
    cache = StaticCache(config=config, max_cache_len=length)
    cache.layers = [
        StaticLayer(max_cache_len=length) if layer.is_sliding and layer.max_cache_len == length else layer
        for layer in cache.layers
    ]
    return cache


def slides(cache: StaticCache) -> bool:
    """Whether any layer of the cache forgets tokens, because its window is shorter than the cache."""
    return any(layer.is_sliding for layer in cache.layers)
