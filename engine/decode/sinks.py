"""A sliding window with attention sinks: the first tokens and the newest ones, in memory that does not grow."""

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from engine.decode.stepper import Cached

SLACK = 64
"""Tokens that a layer can write before it has to move what it keeps back to the start of its memory."""


class SinkLayer(DynamicLayer):
    """A layer of a cache that keeps the first `sinks` tokens and the newest `window`.

    Keys stay turned to the positions at which they were written. What is kept lies in one piece, [sinks, window],
    in a buffer of fixed size: when a token leaves the window, the few sinks move up by one into its place.
    Source: StreamingLLM, Xiao et al. 2023, arXiv:2309.17453.
    """

    def __init__(self, sinks: int, window: int):
        super().__init__()
        self.sinks, self.window = sinks, window
        self.order: torch.Tensor | None = None
        self.seen = self.start = self.end = 0

    @property
    def room(self) -> int:
        """Tokens that the buffer holds."""
        return self.sinks + self.window + SLACK

    @property
    def kept(self) -> int:
        """Tokens that the next step can still see."""
        return min(self.end - self.start, self.sinks + self.window)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        batch, heads = key_states.shape[:2]
        self.keys = key_states.new_zeros(batch, heads, self.room, key_states.shape[-1])
        self.values = value_states.new_zeros(batch, heads, self.room, value_states.shape[-1])

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple:
        """Keep new tokens; the keys and values that may be attended to now, [batch, heads, tokens, channels]."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = key_states.shape[-2]
        self._forget()
        self.seen += new
        if new > SLACK or self.order is not None:
            return self._cut(key_states, value_states)
        if self.end + new > self.room:
            self._move_back()
        self.keys[..., self.end : self.end + new, :] = key_states
        self.values[..., self.end : self.end + new, :] = value_states
        self.end += new
        return self.keys[..., self.start : self.end, :], self.values[..., self.start : self.end, :]

    def _forget(self) -> None:
        """Let go of what the last step could still see, but this one may not: it is safe only now."""
        surplus = self.end - self.start - self.kept
        if surplus:
            target = slice(self.start + surplus, self.start + surplus + self.sinks)
            for buffer in (self.keys, self.values):
                buffer[..., target, :] = buffer[..., self.start : self.start + self.sinks, :].clone()
            self.start += surplus

    def _move_back(self) -> None:
        for buffer in (self.keys, self.values):
            buffer[..., : self.kept, :] = buffer[..., self.start : self.end, :].clone()
        self.start, self.end = 0, self.kept

    def _cut(self, key_states: torch.Tensor, value_states: torch.Tensor) -> tuple:
        """Many tokens at once, a prompt: all of them are attended to now, then most are forgotten."""
        span = slice(self.start, self.end)
        keys = torch.cat((self.keys[..., span, :], key_states), -2)
        values = torch.cat((self.values[..., span, :], value_states), -2)
        for buffer, whole in ((self.keys, keys), (self.values, values)):
            kept = self._chosen(whole)
            buffer[..., : kept.shape[-2], :] = kept
        self.start, self.end = 0, kept.shape[-2]
        self.order = None
        return keys, values

    def _chosen(self, whole: torch.Tensor) -> torch.Tensor:
        """The sinks and the window; `order` [batch, tokens] puts each row's first real tokens before its padding."""
        if self.order is not None:
            whole = whole.gather(2, self.order[:, None, :, None].expand_as(whole))
        if whole.shape[-2] <= self.sinks + self.window:
            return whole
        return torch.cat((whole[..., : self.sinks, :], whole[..., -self.window :, :]), -2)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length of what is attended to, and its offset: every kept token lies before the new ones."""
        return self.kept + query_length, self.seen - self.kept

    def get_seq_length(self) -> int:
        """Tokens seen, kept or not: the next one's position."""
        return self.seen

    def crop(self, tokens_to_remove: int) -> None:
        """Raises ValueError: what has left the window cannot come back."""
        raise ValueError("A window with attention sinks cannot take tokens back.")

    def reset(self) -> None:
        self.keys = self.values = self.order = None
        self.is_initialized = False
        self.seen = self.start = self.end = 0


class Windowed(Cached):
    """Steps that see the first tokens and the newest ones of each row.

    In a batch, a prompt shorter than the sinks has only its own tokens as sinks.
    """

    def __init__(self, model: Any, pad: list[int], sinks: int, window: int):
        cache = DynamicCache(config=model.config)
        cache.layers = [SinkLayer(sinks, window) for _ in cache.layers]
        super().__init__(model, pad, cache)
        self.sinks = sinks

    def read(self, ids: torch.Tensor) -> torch.Tensor:
        """Read the prompts in full, then keep of each row its own first tokens: padding is nobody's sink."""
        if self.pad is None:
            return super().read(ids)
        lead = (ids.shape[1] - self.pad).clamp(max=self.sinks)
        columns = torch.arange(ids.shape[1], device=ids.device)
        inner = torch.where(columns < lead + self.pad, columns - lead, columns)
        for layer in self.cache.layers:
            layer.order = torch.where(columns < lead, columns + self.pad, inner)
        logits = super().read(ids)
        self.lead = lead
        return logits

    def _placed(self, ids: torch.Tensor, width: int) -> dict[str, torch.Tensor]:
        """Columns are counted as if nothing had been forgotten, so the sinks' own are brought up to where they lie."""
        placed = super()._placed(ids, width)
        first = self.cache.layers[0]
        if placed and (forgotten := first.seen - first.kept):
            sinks = torch.arange(self.sinks, device=ids.device) < self.lead
            placed["attention_mask"][:, forgotten : forgotten + self.sinks] = sinks.long()
        return placed
