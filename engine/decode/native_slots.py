"""Slots that native steps of a processor read: every new token has its row and its place, so a step is one call."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from engine.decode.scheduler import Work
from engine.kernels.packed import Decoder


class NativeSlots:
    """As engine.decode.continuous.Kept, over the cache of a compiled step, which keeps float32.

    No key is copied when a request leaves: `order` says in which row of the cache each row's text lies.
    """

    name, native = "packed slots", True

    def __init__(self, decoder: Decoder):
        self.decoder, self.rows, self.length = decoder, decoder.rows, decoder.length
        self.order = list(range(decoder.rows))

    def open(self) -> AbstractContextManager[None]:
        return nullcontext()

    def read(self, work: Work, cached: Sequence[int], ids: Sequence[int]) -> torch.Tensor:
        rows = [self.order[row] for row in work.decoding]
        places = [cached[row] for row in work.decoding]
        wanted = list(range(len(rows)))
        for chunk in work.chunks:
            rows += [self.order[chunk.row]] * chunk.count
            places += range(chunk.start, chunk.start + chunk.count)
            wanted += [len(rows) - 1] * chunk.last
        return self.decoder.step(*(torch.tensor(part, dtype=torch.long) for part in (ids, rows, places, wanted)))

    def move(self, source: int, target: int, tokens: int) -> None:
        self.order[source], self.order[target] = self.order[target], self.order[source]

    def bytes(self) -> int:
        return self.decoder.cache.numel() * self.decoder.cache.element_size()
