"""Steppers: one forward pass over HF modules with a KV cache that is off, grows, or is allocated once."""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from transformers import DynamicCache, StaticCache
from transformers.cache_utils import StaticLayer

from engine.decode.footprint import kv_bytes
from engine.decode.sampling import Choose, Sampling

Forward = Callable[..., Any]


@functools.cache
def cache_argument(model: type) -> str:
    """What the forward pass of this class of models calls its cache: transformers 5.24 changed the name."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


class Stepper:
    """Runs the model over new tokens and keeps their keys and values. `length` counts the tokens seen.

    Shapes: ids are [batch, tokens], logits [batch, tokens, vocabulary]. `pad` is [batch] pad tokens on the left,
    or after the first `lead` columns of the cache where those came from somewhere else.
    """

    fixed_width = native = False
    lead: Any = 0
    reader: "Callable[[Stepper, torch.Tensor], torch.Tensor] | None" = None
    """Reads the prompts in its own way, with `read`."""

    def __init__(self, model: Any, pad: list[int]):
        self.model = model
        self.length = 0
        self.pad = torch.tensor(pad, device=model.device)[:, None] if any(pad) else None

    def prefill(self, ids: torch.Tensor) -> torch.Tensor:
        """Read the prompts; logits of their last position only, [batch, 1, vocabulary]."""
        return self.reader(self, ids) if self.reader else self.read(ids)

    def read(self, ids: torch.Tensor) -> torch.Tensor:
        """Read tokens of the prompts; logits of their last position only, [batch, 1, vocabulary]."""
        return self._forward(self.model.forward, ids, keep=1)

    def step(self, ids: torch.Tensor) -> torch.Tensor:
        """Read the next tokens; logits of every position."""
        return self._forward(self.model.forward, ids, keep=ids.shape[1])

    def write(self, tokens: torch.Tensor, sampling: Sampling, choose: Choose) -> Iterator[list[int]]:
        """One token of each text after the other, without end: `tokens` [batch, 1], and then what follows them.

        `choose` is the chooser that found the first ones.
        """
        while True:
            yield tokens[:, 0].tolist()
            tokens = choose(self.step(tokens)[:, -1:])

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
        """Mask and positions of left-padded rows; nothing for rows of equal length, which is faster.

        A compiled step is given its positions always: OPT would cut them by a length that the compiler cannot know.
        """
        if self.pad is None and not self.fixed_width:
            return {}
        positions = torch.arange(self.length, self.length + ids.shape[1], device=ids.device)
        if self.pad is None:
            return {"position_ids": positions[None]}
        columns = torch.arange(width, device=ids.device)
        seen = (columns < self.lead) | (columns >= self.lead + self.pad)
        return {"attention_mask": seen.long(), "position_ids": (positions - self.pad).clamp(min=0)}


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
        placed = self._placed(ids, self._width(ids)) | {cache_argument(type(self.model)): self.cache}
        out = forward(ids, use_cache=True, logits_to_keep=keep, **placed)
        self.length += ids.shape[1]
        return out.logits

    def _width(self, ids: torch.Tensor) -> int:
        return self.length + ids.shape[1]

    def rollback(self, tokens: int) -> None:
        if tokens:
            take_back(self.cache.layers, tokens)
            self.length -= tokens

    def kv_bytes(self) -> int:
        return kv_bytes(self.cache)

    def cache_name(self) -> str:
        return type(self.cache).__name__


class Growing(Cached):
    """A cache that grows by copying with every token."""

    def __init__(self, model: Any, pad: list[int], cache: Any = None):
        super().__init__(model, pad, DynamicCache(config=model.config) if cache is None else cache)


class Preallocated(Cached):
    """A cache of full length, kept from turn to turn; its step may be compiled."""

    def __init__(self, model: Any, pad: list[int], cache: StaticCache, compiled: Forward | None):
        super().__init__(model, pad, cache)
        self.compiled = compiled
        self.fixed_width = compiled is not None
        cache.reset()

    def step(self, ids: torch.Tensor) -> torch.Tensor:
        return self._forward(self.compiled or self.model.forward, ids, keep=ids.shape[1])

    def _width(self, ids: torch.Tensor) -> int:
        return max(self.cache.get_max_length(), self.length + ids.shape[1])


def keep_all(config: Any, length: int | None = None) -> Any:
    """A cache from which tokens can be taken back: it keeps every token, also in layers that see a window only.

    A layer that drops what leaves its window could not bring it back. With a `length` in tokens the cache is static.
    """
    if length is None:
        return DynamicCache()
    cache = StaticCache(config=config, max_cache_len=length)
    cache.layers = [StaticLayer(max_cache_len=length) for _ in cache.layers]
    return cache


def take_back(layers: Iterable[Any], tokens: int) -> None:
    """Forget the last `tokens` tokens: a growing layer is cut, a static one's position is one tensor."""
    for layer in layers:
        if isinstance(layer, StaticLayer):
            layer.cumulative_length.sub_(tokens)
        else:
            layer.crop(-tokens)
