"""A weight as the kernels of a GPU read it: plain numbers, or whole ones of 8 or 4 bits with scales."""

import torch

BITS = {"plain": 0, "int8": 8, "int4": 4}
BLOCKS = (128, 64, 32)
"""Weights that are packed together, and in 4 bits share a scale: the most that divides the depth."""


class Matrix:
    """A weight [rows, depth]: "plain" as it is, "int8" with a scale for each row, "int4" with one for each block.

    int8 scales by a row's largest weight; int4 by a block's largest, which becomes -8, as in llama.cpp's Q4_0.
    Several whole numbers, with half their range added, share a 32-bit word: number i of a block's word w is its weight
    i x words + w, so that the numbers at one place of neighbouring words meet neighbouring inputs.
    The depth of packed weights is a multiple of 32.
    """

    def __init__(self, weight: torch.Tensor, kind: str):
        self.kind, self.bits, (self.rows, self.depth) = kind, BITS[kind], weight.shape
        self.block = next(block for block in BLOCKS if self.depth % block == 0) if self.bits else 0
        self.scales: torch.Tensor | None = None
        self.weight = weight.detach().contiguous()
        if self.bits:
            whole, self.scales = (_by_row if self.bits == 8 else _by_block)(self.weight, self.block)
            self.weight = self._words(whole + (1 << self.bits - 1))

    def bytes(self) -> int:
        return sum(part.numel() * part.element_size() for part in (self.weight, self.scales) if part is not None)

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """The weights as plain numbers [rows, depth]."""
        if not self.bits:
            return self.weight
        words = self.weight.view(self.rows, -1, 1, self.block * self.bits // 32)
        whole = ((words >> self._shifts()) & ((1 << self.bits) - 1)) - (1 << self.bits - 1)
        scales = self.scales[:, None, None] if self.bits == 8 else self.scales[..., None]
        return (whole.flatten(2) * scales).to(dtype).view(self.rows, self.depth)

    def _words(self, whole: torch.Tensor) -> torch.Tensor:
        """int32 [rows, depth / numbers in a word] of int32 [rows, blocks, block]."""
        places = whole.view(*whole.shape[:2], 32 // self.bits, -1)
        return (places << self._shifts()).sum(2, dtype=torch.int32).flatten(1)

    def _shifts(self) -> torch.Tensor:
        return torch.arange(0, 32, self.bits, device=self.weight.device, dtype=torch.int32)[:, None]


def _by_row(weight: torch.Tensor, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """int32 [rows, blocks, block] of -127 to 127, and float32 scales [rows]."""
    scales = weight.abs().amax(1).float().div_(127)
    scales[scales == 0] = 1
    whole = (weight / scales[:, None]).round_().clamp_(-127, 127).to(torch.int32)
    return whole.view(len(weight), -1, block), scales


def _by_block(weight: torch.Tensor, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """int32 [rows, blocks, block] of -8 to 7, and scales [rows, blocks] in the weight's own number format."""
    blocks = weight.float().view(len(weight), -1, block)
    peak = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))[..., 0]
    scales = (peak / -8).to(weight.dtype)
    scales[scales == 0] = 1
    return (blocks / scales.float()[..., None]).round_().clamp_(-8, 7).to(torch.int32), scales
