"""Large pages: memory in which weights lie side by side, so that looking up places does not slow reading."""

import math
import mmap
from contextlib import suppress

import torch

BLOCK = 2**26
"""Bytes that are asked of the system at once; what is not written to costs nothing."""
LINE = 64
"""Tensors begin at a processor's cache line."""


def block(size: int) -> torch.Tensor:
    """`size` bytes of zeros, in large pages where the system has them.

    The memory is this process's own: what could be shared, as Python maps it unless it is told, gets large pages on
    few systems, and a step over small ones takes 5 to 9 % longer.
    """
    own = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
    space = mmap.mmap(-1, size, **own)
    with suppress(OSError, AttributeError):
        space.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(space, dtype=torch.uint8)


class Pages:
    """Tensors one after the other in few blocks, each of which lives as long as one of its tensors."""

    def __init__(self) -> None:
        self.room = torch.empty(0, dtype=torch.uint8)

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy of the tensor, its numbers without gaps."""
        size = tensor.numel() * tensor.element_size()
        if size > len(self.room):
            self.room = block(max(BLOCK, size))
        kept = self.room[:size].view(tensor.dtype).view(tensor.shape)
        self.room = self.room[math.ceil(size / LINE) * LINE :]
        return kept.copy_(tensor)
