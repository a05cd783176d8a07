"""Keys and values in few bits: packed blocks of the older tokens, and the newest tokens as they came."""

import math
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

FULL = 16
"""The number of bits that stands for "as the model computes them"."""


class Packed:
    """The keys or the values of older tokens of one layer, in `bits` of 8, 4 or FULL.

    The numbers of a group share a scale and a least value, both in 16 bits. A group of keys is one channel of
    `group` consecutive tokens; a group of values is `group` consecutive channels of one token. Keys have a few
    channels that are large in every token, so they are grouped by channel; values have none.
    Source: KIVI, Liu et al. 2024, arXiv:2402.02750.
    """

    def __init__(self, bits: int, group: int, by_channel: bool):
        self.bits, self.group, self.by_channel = bits, group, by_channel
        self.codes: torch.Tensor | None = None
        self.scale: torch.Tensor | None = None
        self.least: torch.Tensor | None = None

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [tensor for tensor in (self.codes, self.scale, self.least) if tensor is not None]

    def add(self, block: torch.Tensor) -> None:
        """Keep some more tokens, [batch, heads, a multiple of `group`, channels]."""
        if self.bits == FULL:
            self.codes = _joined(self.codes, block.clone())
            return
        small = block.dtype if block.dtype.itemsize == 2 else torch.float16
        groups = self._grouped(block)
        along = -2 if self.by_channel else -1
        low, high = groups.amin(along, keepdim=True).to(small), groups.amax(along, keepdim=True)
        # A least scale keeps a group of equal numbers from a division by zero.
        scale = ((high - low) / (2**self.bits - 1)).clamp(min=torch.finfo(torch.float16).tiny).to(small)
        codes = ((groups - low.to(block.dtype)) / scale.to(block.dtype)).round_().clamp_(0, 2**self.bits - 1)
        codes = codes.to(torch.uint8).view(block.shape)
        self.codes = _joined(self.codes, _halves(codes) if self.bits == 4 else codes)
        self.scale, self.least = _joined(self.scale, scale), _joined(self.least, low)

    def read(self, out: torch.Tensor) -> None:
        """Write all kept tokens into `out`, [batch, heads, tokens, channels], in its dtype."""
        if self.codes is None:
            return
        if self.bits == 4:
            half = self.codes.shape[-1]
            out[..., :half] = self.codes & 15
            out[..., half:] = self.codes >> 4
        else:
            out.copy_(self.codes)
        if self.bits != FULL:
            groups = self._grouped(out)
            torch.addcmul(self.least.to(out.dtype), groups, self.scale.to(out.dtype), out=groups)

    def _grouped(self, tokens: torch.Tensor) -> torch.Tensor:
        """A view with the groups apart: [batch, heads, blocks, group, channels], or [..., tokens, groups, channels]."""
        if self.by_channel:
            return tokens.unflatten(-2, (-1, self.group))
        return tokens.unflatten(-1, (-1, values_group(self.group, tokens.shape[-1])))


class QuantizedLayer(DynamicLayer):
    """A layer of a cache that keeps its older tokens packed. The newest `group` tokens stay as they came.

    Tokens are packed in blocks of `group`, as soon as two such blocks are full. What is being read attends to
    its own keys and values in full precision, and to packed ones as they were rounded.
    """

    def __init__(self, keys: int, values: int, group: int):
        super().__init__()
        self.bits, self.group = (keys, values), group
        self._empty()

    def _empty(self) -> None:
        keys, values = self.bits
        self.older = 0
        self.packed = (Packed(keys, self.group, by_channel=True), Packed(values, self.group, by_channel=False))

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple:
        """Keep new tokens; all keys and values, [batch, heads, tokens, channels], to attend to now."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys = self._whole(self.packed[0], self.keys, key_states)
        values = self._whole(self.packed[1], self.values, value_states)
        full = packable(keys.shape[-2], self.group) - self.older
        if full > 0:
            block = slice(self.older, self.older + full)
            self.packed[0].add(keys[..., block, :])
            self.packed[1].add(values[..., block, :])
            self.older += full
        self.keys, self.values = keys[..., self.older :, :].clone(), values[..., self.older :, :].clone()
        return keys, values

    def _whole(self, packed: Packed, recent: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        known = self.older + (recent.shape[-2] if recent.numel() else 0)
        whole = new.new_empty(*new.shape[:2], known + new.shape[-2], new.shape[-1])
        packed.read(whole[..., : self.older, :])
        if recent.numel():
            whole[..., self.older : known, :] = recent
        whole[..., known:, :] = new
        return whole

    def get_seq_length(self) -> int:
        return self.older + super().get_seq_length()

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the newest tokens; `tokens_to_remove` is negative. Raises ValueError beyond the unpacked ones."""
        if -tokens_to_remove > super().get_seq_length():
            raise ValueError(f"Only the {super().get_seq_length()} newest tokens are not packed and can be taken back.")
        super().crop(tokens_to_remove)

    def reset(self) -> None:
        self.keys = self.values = None
        self.is_initialized = False
        self._empty()

    def groups(self) -> set[int]:
        """How many numbers share a scale, counted in what is packed; the size of the first group until there is one.

        Values of too few channels for whole groups count as grouped so where they have the share that fits.
        """
        keys, values = (packed.scale for packed in self.packed)
        found = set() if keys is None else {self.older // keys.shape[2]}
        if values is not None:
            channels = self.keys.shape[-1]
            share = channels // values.shape[-2]
            found.add(self.group if share == values_group(self.group, channels) else share)
        return found or {self.group}

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Everything that the layer keeps."""
        recent = [tensor for tensor in (self.keys, self.values) if tensor is not None]
        return [*recent, *(tensor for packed in self.packed for tensor in packed.tensors)]


def packable(tokens: int, group: int) -> int:
    """How many of so many tokens are packed: whole blocks, leaving at least the newest `group` as they came."""
    return max(0, (tokens // group - 1) * group)


def values_group(group: int, channels: int) -> int:
    """Channels in a group of values: `group`, or the largest share of it that divides the channels evenly."""
    return math.gcd(group, channels)


def packed_bytes(bits: int, group: int, full: float) -> float:
    """Bytes of one number with its share of the group's scale and least value; `full` where it is not packed."""
    return full if bits == FULL else bits / 8 + 4 / group


def _halves(codes: torch.Tensor) -> torch.Tensor:
    """Two numbers of 4 bits in a byte: the first half of the channels in the low bits, the second in the high ones."""
    low, high = codes.chunk(2, -1)
    return low | (high << 4)


def _joined(kept: torch.Tensor | None, new: torch.Tensor) -> torch.Tensor:
    return new if kept is None else torch.cat((kept, new), 2)
