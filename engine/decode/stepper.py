"""Steppers: one forward pass over HF modules with a KV cache that is off, grows, or is allocated once."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import DynamicCache, StaticCache

Forward = Callable[..., Any]


class Stepper:
    """Runs the model over new tokens and keeps their keys and values. `length` counts the tokens seen.

    Shapes: ids are [batch, tokens], logits [batch, tokens, vocabulary]. `pad` is [batch] pad tokens on the left.
    """

    fixed_width = False

    def __init__(self, model: Any, pad: list[int]):
        self.model = model
        self.length = 0
        self.pad = torch.tensor(pad, device=model.device)[:, None] if any(pad) else None

    def prefill(self, ids: torch.Tensor) -> torch.Tensor:
        """Read the prompts; logits of their last position only, [batch, 1, vocabulary]."""
        return self._forward(self.model.forward, ids, keep=1)

    def step(self, ids: torch.Tensor) -> torch.Tensor:
        """Read the next tokens; logits of every position."""
        return self._forward(self.model.forward, ids, keep=ids.shape[1])

    def rollback(self, tokens: int) -> None:
        """Forget the last `tokens` tokens."""
        raise AttributeError(f"{type(self).__name__} cannot take tokens back")

    def kv_bytes(self) -> int:
        return 0

    def cache_name(self) -> str | None:
        return None

    def _forward(self, forward: Forward, ids: torch.Tensor, keep: int) -> torch.Tensor:
        raise AttributeError(f"{type(self).__name__} has no forward pass")

    def _placed(self, ids: torch.Tensor, width: int) -> dict[str, torch.Tensor]:
        """Mask and positions of left-padded rows; nothing for rows of equal length, which is faster."""
        if self.pad is None:
            return {}
        columns = torch.arange(width, device=ids.device)
        positions = torch.arange(self.length, self.length + ids.shape[1], device=ids.device) - self.pad
        return {"attention_mask": (columns >= self.pad).long(), "position_ids": positions.clamp(min=0)}


class Recompute(Stepper):
    """No cache: every step reads the whole text again."""

    def __init__(self, model: Any, pad: list[int]):
        super().__init__(model, pad)
        self.ids: torch.Tensor | None = None

    def _forward(self, forward: Forward, ids: torch.Tensor, keep: int) -> torch.Tensor:
        self.ids = ids if self.ids is None else torch.cat((self.ids, ids), dim=1)
        self.length = 0
        placed = self._placed(self.ids, self.ids.shape[1])
        return forward(self.ids, use_cache=False, logits_to_keep=keep, **placed).logits


class Cached(Stepper):
    """A cache that transformers' modules write into."""

    def __init__(self, model: Any, pad: list[int], cache: Any):
        super().__init__(model, pad)
        self.cache = cache

    def _forward(self, forward: Forward, ids: torch.Tensor, keep: int) -> torch.Tensor:
        placed = self._placed(ids, self._width(ids))
        out = forward(ids, past_key_values=self.cache, use_cache=True, logits_to_keep=keep, **placed)
        self.length += ids.shape[1]
        return out.logits

    def _width(self, ids: torch.Tensor) -> int:
        return self.length + ids.shape[1]

    def kv_bytes(self) -> int:
        return kv_bytes(self.cache)

    def cache_name(self) -> str:
        return type(self.cache).__name__


class Growing(Cached):
    """A cache that grows by copying with every token."""

    def __init__(self, model: Any, pad: list[int]):
        super().__init__(model, pad, DynamicCache(config=model.config))

    def rollback(self, tokens: int) -> None:
        if tokens:
            self.cache.crop(-tokens)
            self.length -= tokens


class Preallocated(Cached):
    """A cache of full length, kept from turn to turn; its step may be compiled."""

    def __init__(self, model: Any, pad: list[int], cache: StaticCache, compiled: Forward | None):
        super().__init__(model, pad, cache)
        self.compiled = compiled
        self.fixed_width = compiled is not None
        cache.reset()

    def step(self, ids: torch.Tensor) -> torch.Tensor:
        return self._forward(self.compiled or self.model.forward, ids, keep=ids.shape[1])

    def rollback(self, tokens: int) -> None:
        """The position of a static layer is one tensor, so taking tokens back is a subtraction."""
        if tokens:
            for layer in self.cache.layers:
                layer.cumulative_length.sub_(tokens)
            self.length -= tokens

    def _width(self, ids: torch.Tensor) -> int:
        return self.cache.get_max_length()


def kv_bytes(cache: Any) -> int:
    """Bytes of the keys and values that a transformers cache holds."""
    tensors = [t for layer in cache.layers for t in (layer.keys, layer.values) if torch.is_tensor(t)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
