"""Slots: keys and values of many requests of different lengths, and one forward pass over all their new tokens."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from engine.decode.scheduler import Chunk, Work
from engine.refusal import Refusal

NAME = "pitlane_slots"
STEP = 16
"""Attention reads this many tokens at a time: widths are rounded up to it."""


class Slots:
    """Keys and values of up to `rows` requests, `length` tokens each, that a model's modules attend over: a tensor
    [rows, kv heads, length, head size] for each layer. Made at a layer's first write, which knows its shape; zeros,
    since masked values are multiplied by zero and must be finite.
    """

    name, native = "Slots", False

    def __init__(self, model: Any, rows: int, length: int):
        self.model, self.rows, self.length = model, rows, length
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def open(self) -> AbstractContextManager[None]:
        """Steps are read inside."""
        return attending(self.model)

    def read(self, work: Work, cached: Sequence[int], ids: Sequence[int]) -> torch.Tensor:
        """One pass over the tokens of a step: logits [answering rows, vocabulary], in the order of Work.answering.

        No mask is built by the modules, since transformers knows none for this attention.
        """
        step = Packed.of(self, work, cached, self.model.device)
        token = _step.set(step)
        try:
            packed = torch.tensor([ids], device=self.model.device)
            keep = step.answers()
            out = self.model(packed, position_ids=step.positions(), use_cache=False, logits_to_keep=keep)
            return out.logits[0]
        finally:
            _step.reset(token)

    def layer(self, number: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values of a layer; `key` and `value` [1, kv heads, tokens, head size] show their shape."""
        if number not in self.layers:
            shapes = [(self.rows, part.shape[1], self.length, part.shape[3]) for part in (key, value)]
            keys, values = (part.new_zeros(shape) for part, shape in zip((key, value), shapes, strict=True))
            self.layers[number] = (keys, values)
        return self.layers[number]

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copy the first `tokens` of a row into another."""
        for part in self._parts() if source != target else ():
            part[target, :, :tokens] = part[source, :, :tokens]

    def bytes(self) -> int:
        """Bytes that are allocated, whether used or not."""
        return sum(part.numel() * part.element_size() for part in self._parts())

    def _parts(self) -> list[torch.Tensor]:
        return [part for pair in self.layers.values() for part in pair]


@dataclass
class Packed:
    """One step over the slots, as tensors: what every layer's attention needs to know.

    `rows` slots are in use. The step's tokens are one of each `decoding` row, whose `lengths` tokens are kept, and
    then those of the `chunks`.
    """

    slots: Slots
    rows: int
    decoding: torch.Tensor
    lengths: torch.Tensor
    width: int
    chunks: tuple[Chunk, ...]
    masks: dict[tuple, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, slots: Slots, work: Work, cached: Sequence[int], device: torch.device) -> "Packed":
        """`cached` is how many tokens each row keeps."""
        lengths = [cached[row] for row in work.decoding]
        widest = -(-(max(lengths, default=0) + 1) // STEP) * STEP
        rows, lengths = torch.tensor([work.decoding, lengths], dtype=torch.long, device=device)
        return cls(slots, len(cached), rows, lengths, min(widest, slots.length), work.chunks)

    def positions(self) -> torch.Tensor:
        """The place of every new token in its own text, [1, tokens]."""
        device = self.lengths.device
        read = [torch.arange(c.start, c.start + c.count, device=device) for c in self.chunks]
        return torch.cat([self.lengths, *read])[None]

    def answers(self) -> torch.Tensor:
        """Which of the new tokens are followed by a token of the answer, [answering rows]."""
        count, ends = len(self.lengths), []
        for chunk in self.chunks:
            count += chunk.count
            ends += [count - 1] if chunk.last else []
        return torch.tensor([*range(len(self.lengths)), *ends], dtype=torch.long, device=self.lengths.device)

    def decode_mask(self, window: int | None) -> torch.Tensor:
        """Which kept tokens the one query of each row sees, [rows, 1, 1, width]."""
        key = ("decode", window)
        if key not in self.masks:
            seen = self.lengths.new_zeros(self.rows)
            seen[self.decoding] = self.lengths
            self.masks[key] = _visible(seen[:, None], self.width, window)[:, None]
        return self.masks[key]

    def chunk_mask(self, chunk: Chunk, window: int | None, repeats: int) -> torch.Tensor:
        """Which tokens of its own text each token of a chunk sees, [repeats x count, start + count]."""
        key = (chunk, window, repeats)
        if key not in self.masks:
            places = torch.arange(chunk.start, chunk.start + chunk.count, device=self.lengths.device)
            self.masks[key] = _visible(places, chunk.start + chunk.count, window).repeat(repeats, 1)
        return self.masks[key]


def _visible(places: torch.Tensor, width: int, window: int | None) -> torch.Tensor:
    """Whether the token at a place sees each of the first `width` tokens: [..., width] for places [...]."""
    columns = torch.arange(width, device=places.device)
    seen = columns <= places[..., None]
    return seen & (columns > places[..., None] - window) if window else seen


_step: ContextVar[Packed] = ContextVar("step")


def attend(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any = None,
    scaling: float | None = None, sliding_window: int | None = None, softcap: float | None = None, **other: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Attention of one packed step, as transformers' modules call it: [1, heads, tokens, head size] in, and
    [1, tokens, heads, head size] out. It keeps the new keys and values in the slots on the way.
    """
    if odd := [name for name in ("s_aux", "position_bias") if other.get(name) is not None]:
        raise Refusal(f"This model's attention uses {odd[0]}, which continuous batching over slots does not know.")
    step = _step.get()
    keys, values = step.slots.layer(module.layer_idx, key, value)
    ones, out = len(step.lengths), []
    if ones:
        keys[step.decoding, :, step.lengths] = key[0, :, :ones].transpose(0, 1)
        values[step.decoding, :, step.lengths] = value[0, :, :ones].transpose(0, 1)
        out.append(_decode(step, query[0, :, :ones], keys, values, (scaling, sliding_window, softcap)))
    for chunk in step.chunks:
        new = slice(ones, ones + chunk.count)
        ones += chunk.count
        kept = slice(chunk.start, chunk.start + chunk.count)
        keys[chunk.row, :, kept], values[chunk.row, :, kept] = key[0, :, new], value[0, :, new]
        out.append(_read(step, chunk, query[0, :, new], keys, values, (scaling, sliding_window, softcap)))
    return torch.cat(out)[None], None


Kind = tuple[float | None, int | None, float | None]
"""Scale, sliding window and soft cap of an attention."""


def _decode(step: Packed, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, kind: Kind) -> torch.Tensor:
    """One query for each decoding row, [heads, rows, size] in and [rows, heads, size] out.

    All rows in use take part, so that the slots are read where they lie; rows whose prompt is still being read
    bring a query of zeros, and what comes of it is dropped. The heads that share keys stand in the place of
    several tokens, so that no key is repeated.
    """
    heads, count, size = query.shape
    query = query.transpose(0, 1)
    whole = count == step.rows
    asked = query if whole else query.new_zeros(step.rows, heads, size).index_copy_(0, step.decoding, query)
    shared = asked.reshape(step.rows, keys.shape[1], -1, size)
    kept = (part[: step.rows, :, : step.width] for part in (keys, values))
    found = _attention(shared, *kept, step.decode_mask(kind[1]), kind)
    found = found.reshape(step.rows, heads, -1)
    return found if whole else found.index_select(0, step.decoding)


def _read(
    step: Packed, chunk: Chunk, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, kind: Kind
) -> torch.Tensor:
    """The queries of a chunk over its own text, [heads, count, size] in and [count, heads, size] out."""
    heads, count, size = query.shape
    groups = keys.shape[1]
    kept = (part[chunk.row, None, :, : chunk.start + count] for part in (keys, values))
    mask = step.chunk_mask(chunk, kind[1], heads // groups)
    found = _attention(query.reshape(1, groups, -1, size), *kept, mask, kind)
    return found.reshape(heads, count, -1).transpose(0, 1)


def _attention(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, kind: Kind
) -> torch.Tensor:
    """One fused operator, or written out where scores have a soft cap, which the operator does not know."""
    scale, _, cap = kind
    if cap is None:
        return scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scale)
    scores = query @ keys.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    scores = (torch.tanh(scores / cap) * cap).masked_fill(~mask, float("-inf"))
    return torch.softmax(scores.float(), -1).to(query.dtype) @ values


AttentionInterface.register(NAME, attend)


@contextmanager
def attending(model: Any):
    """The model's modules attend over slots inside, and as before outside."""
    configs = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    before = {key: config._attn_implementation for key, config in configs.items()}
    for config in configs.values():
        config._attn_implementation = NAME
    try:
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]
