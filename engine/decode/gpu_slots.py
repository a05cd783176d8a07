"""Slots that native steps of a GPU read: recorded steps for several numbers of rows, recorded pieces of prompts."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy

import torch
from torch.nn.functional import scaled_dot_product_attention

from engine.decode.gpu import Recorded, recorded_width
from engine.decode.gpu_pass import Context, Pass, Weights
from engine.decode.scheduler import Chunk, Work
from engine.kernels.rope import rope_into_cache


class GpuSlots:
    """As engine.decode.continuous.Kept: a row of a context for each request, whose first column is its text's.

    Everything is recorded when the slots are made, so that no step of a turn waits for a recording.
    Raises Refusal where that fails.
    """

    name, native = "packed slots", True

    def __init__(self, weights: Weights, rows: int, length: int, chunk: int):
        self.weights, self.rows, self.length = weights, rows, length
        self.packed = weights.kind != "plain"
        self.context = context = Context(weights, rows, length)
        widths = {recorded_width(1, tokens, self.packed) for tokens in range(1, min(chunk, length) + 1)} - {None}
        self.steps = {count: Newest(weights, context, count) for count in _counts(rows)}
        self.pieces = {width: Piece(weights, context, width) for width in sorted(widths)}
        for one in self.recordings():
            one.record()

    def recordings(self) -> tuple[Recorded, ...]:
        return (*self.steps.values(), *self.pieces.values())

    def open(self) -> AbstractContextManager[None]:
        return nullcontext()

    def read(self, work: Work, cached: Sequence[int], ids: Sequence[int]) -> torch.Tensor:
        """A recording may write over what another one has left, so every logit is copied before the next one runs."""
        told = len(work.decoding)
        found = [self._newest(work.decoding, cached, ids[:told])] if told else []
        for chunk in work.chunks:
            logits = self._prompt(chunk, ids[told : told + chunk.count])
            found += [logits] * chunk.last
            told += chunk.count
        return torch.cat(found) if found else self.context.angles[0].new_empty(0, len(self.weights.embedding))

    def _newest(self, decoding: Sequence[int], cached: Sequence[int], ids: Sequence[int]) -> torch.Tensor:
        """One token of each decoding row. Rows between them read a token too, at the place that is written next.

        They see nothing but it, and it is written over by what really comes there.
        """
        step = self.steps[next(count for count in self.steps if count > decoding[-1])]
        places = [*cached, *[0] * len(step.ids)][: len(step.ids)]
        tokens, pads = [0] * len(places), list(places)
        for row, token in zip(decoding, ids, strict=True):
            tokens[row], pads[row] = token, 0
        logits = step.read(tokens, places, pads)
        if len(decoding) == decoding[-1] + 1:
            return logits[: len(decoding)].clone()
        return logits.index_select(0, torch.tensor(decoding, device=logits.device))

    def _prompt(self, chunk: Chunk, ids: Sequence[int]) -> torch.Tensor:
        """Logits [1, vocabulary] after the last token of a chunk, which is read in pieces as long as were recorded."""
        longest, logits = max(self.pieces), torch.empty(0)
        for first in range(0, chunk.count, longest):
            piece = ids[first : first + longest]
            width = recorded_width(1, len(piece), self.packed)
            logits = self.pieces[width].read(piece, chunk.row, chunk.start + first)
        return logits.clone()

    def move(self, source: int, target: int, tokens: int) -> None:
        kept = self.context.cache[:, :, :, :, :tokens]
        kept[:, :, target] = kept[:, :, source]

    def bytes(self) -> int:
        return self.context.cache.numel() * self.context.cache.element_size()


def _counts(rows: int) -> list[int]:
    """Numbers of rows that steps are recorded for: powers of two, and all rows."""
    return [*(1 << power for power in range((rows - 1).bit_length())), rows]


def _part(context: Context, rows: int, cache: torch.Tensor, place: torch.Tensor, pad: torch.Tensor) -> Context:
    """A context that shares what it keeps with another one, with places of its own."""
    part = copy(context)
    part.rows, part.cache, part.place, part.pad = rows, cache, place, pad
    return part


class Newest(Recorded):
    """The step of one token in each of the first `rows`, each at a place of its own."""

    def __init__(self, weights: Weights, context: Context, rows: int):
        self.told = torch.zeros(3, rows, dtype=torch.long, device=context.place.device)
        tokens, places, pads = self.told
        super().__init__(Pass(weights, _part(context, rows, context.cache[:, :, :rows], places, pads), 1))
        self.ids = tokens[:, None]

    def read(self, tokens: Sequence[int], places: Sequence[int], pads: Sequence[int]) -> torch.Tensor:
        """Logits [rows, vocabulary] after a token of each row at its place; columns before its pad are not seen."""
        self.told.copy_(torch.tensor([tokens, places, pads]), non_blocking=True)
        return self.run()[:, 0]


class Piece(Recorded):
    """The reading of up to `width` tokens of one row, which are filled up behind the last of them.

    No token sees what comes after it, and what the filling has left is written over before it is seen.
    """

    def __init__(self, weights: Weights, context: Context, width: int):
        self.told = torch.zeros(3 + width, dtype=torch.long, device=context.place.device)
        self.row, place, self.last, ids = self.told.split([1, 1, 1, width])
        super().__init__(Pass(weights, _part(context, 1, context.cache, place, context.pad[:1]), width))
        self.ids = ids[None]

    def read(self, ids: Sequence[int], row: int, place: int) -> torch.Tensor:
        """Logits [1, vocabulary] after the last of some tokens of a row, the first of which is at a place."""
        filled = [*ids, *[0] * (self.steps.tokens - len(ids))]
        self.told.copy_(torch.tensor([row, place, len(ids) - 1, *filled]), non_blocking=True)
        return self.run()

    def body(self) -> None:
        steps = self.steps
        hidden = steps.run(steps.weights.embedding[self.ids.flatten()], self._attention())
        self.logits = steps.logits(hidden.index_select(0, self.last))

    def _attention(self):
        """Attention to the whole length of the row behind a mask, so that neither row nor place are in the recording.

        The heads that share keys stand in the place of several tokens.
        """
        context, weights, tokens = self.steps.context, self.steps.weights, self.steps.tokens
        columns = context.place + torch.arange(tokens, device=context.place.device)
        angles = tuple(turn[columns.clamp(max=context.length - 1)][None] for turn in context.angles)
        seen = torch.arange(context.length, device=columns.device) <= columns[:, None]
        seen = seen.repeat(weights.heads // weights.kv_heads, 1)

        def attend(number: int, qkv: torch.Tensor) -> torch.Tensor:
            heads = qkv.view(1, tokens, -1, weights.size)
            q, k, v = heads.split([weights.heads, weights.kv_heads, weights.kv_heads], 2)
            kept, norm = context.cache[number], weights.layers[number].heads
            turned = rope_into_cache(q, k, v, angles, (kept[0], kept[1]), context.place, norm, self.row)
            keys, values = kept.index_select(1, self.row)
            shared = turned.view(1, weights.kv_heads, -1, weights.size)
            found = scaled_dot_product_attention(shared, keys, values, attn_mask=seen)
            return found.reshape(1, weights.heads, tokens, -1).transpose(1, 2).reshape(tokens, -1)

        return attend
