"""Slots that native steps of a GPU read: recorded steps for several numbers of rows, recorded pieces of prompts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention

from engine.decode.gpu import LONGEST, Recorded
from engine.decode.gpu_pass import WIDEST, Attend, Context, Pass, Weights
from engine.decode.scheduler import Work
from engine.kernels.rope import rope_into_cache
from engine.kernels.skinny import SKINNY

SMALL, LARGE = 16, 64
"""Tokens of a block. Attention copies the keys of a block's slot, which a long slot makes dear: there blocks are large.
In small ones fewer tokens are filled up."""
LONG = 1024
"""Tokens of a slot up to which blocks are small: 32 copies of them are 134 MB in each layer of an 8B shape."""


@dataclass(frozen=True)
class Block:
    """Neighbouring tokens of a prompt, from place `start` of a row's text on; an answer follows the `last` block."""

    row: int
    start: int
    ids: Sequence[int]
    last: bool

    @property
    def end(self) -> int:
        return self.start + len(self.ids)


class GpuSlots:
    """As engine.decode.continuous.Kept: a row of a context for each request, whose first column is its text's.

    Plain weights are read once for everybody's next token and the prompts beside them. Packed ones are read once for
    each, since more than SKINNY tokens would unpack them. Everything is recorded when the slots are made, so that no
    step of a turn waits for a recording. Raises Refusal where that fails.
    """

    name, native = "packed slots", True

    def __init__(self, weights: Weights, rows: int, length: int, chunk: int):
        self.weights, self.rows, self.length = weights, rows, length
        self.context = context = Context(weights, rows, length)
        self.block = SMALL if length <= LONG else LARGE
        packed = weights.kind != "plain"
        self.beside = 0 if packed else rows
        self.steps = {count: Newest(weights, context, count) for count in counts(rows)}
        self.pieces = {
            width: Piece(weights, context, self.beside, width // self.block, self.block)
            for width in widths(min(chunk, rows * length), self.block, packed)
        }
        for one in self.recordings():
            one.record()

    def recordings(self) -> tuple[Recorded, ...]:
        return (*self.steps.values(), *self.pieces.values())

    def open(self) -> AbstractContextManager[None]:
        return nullcontext()

    def read(self, work: Work, cached: Sequence[int], ids: Sequence[int]) -> torch.Tensor:
        """A recording may write over what another one has left, so every logit is copied before the next one runs."""
        told = len(work.decoding)
        newest, blocks = dict(zip(work.decoding, ids[:told], strict=True)), [*_blocks(work, ids, self.block)]
        places = [*cached, *[0] * (self.rows - len(cached))]
        found = [self._newest(newest, places)] if newest and not (self.beside and blocks) else []
        beside = {} if found else newest
        for piece, read in self._pieces(blocks):
            for block in read:
                places[block.row] = block.end
            found.append(piece.read(read, beside, places).clone())
            for row in beside:
                places[row] += 1
            beside = {}
        return torch.cat(found) if found else self.context.angles[0].new_empty(0, len(self.weights.embedding))

    def _newest(self, newest: Mapping[int, int], places: Sequence[int]) -> torch.Tensor:
        """Logits [rows, vocabulary] after the newest token of some rows, by the smallest step that has them."""
        last = max(newest)
        step = self.steps[next(count for count in self.steps if count > last)]
        logits = step.read(newest, places[: len(step.ids)])
        if len(newest) == last + 1:
            return logits[: len(newest)].clone()
        return logits.index_select(0, torch.tensor([*newest], device=logits.device))

    def _pieces(self, blocks: Sequence[Block]) -> Iterator[tuple["Piece", Sequence[Block]]]:
        """The smallest piece that has room for all blocks, or the largest ones one after another."""
        while blocks:
            room = next((width for width in self.pieces if width >= len(blocks) * self.block), max(self.pieces))
            yield self.pieces[room], blocks[: room // self.block]
            blocks = blocks[room // self.block :]

    def move(self, source: int, target: int, tokens: int) -> None:
        kept = self.context.cache[:, :, :, :, :tokens]
        kept[:, :, target] = kept[:, :, source]

    def bytes(self) -> int:
        return self.context.cache.numel() * self.context.cache.element_size()


def counts(rows: int) -> list[int]:
    """Numbers of rows that steps are recorded for: powers of two, and all rows."""
    return [*(1 << power for power in range((rows - 1).bit_length())), rows]


def widths(tokens: int, block: int, packed: bool) -> list[int]:
    """Tokens of the pieces that are recorded: powers of two up to what a step may read, or a recording may hold.

    Plain weights have none below SKINNY unless a step may not read so many: reading an 8B shape takes an H200 3.4 ms,
    computing 64 tokens less than 2 ms (reckoned, not measured).
    """
    enough = 1 << (tokens - 1).bit_length()
    found = [max(block, 1 if packed else min(enough, SKINNY))]
    while found[-1] < min(enough, SKINNY if packed else LONGEST):
        found.append(2 * found[-1])
    return found


def _blocks(work: Work, ids: Sequence[int], size: int) -> Iterator[Block]:
    """The chunks of a step in blocks of up to `size` tokens; `ids` as `GpuSlots.read` is given them."""
    told = len(work.decoding)
    for chunk in work.chunks:
        for first in range(0, chunk.count, size):
            here = ids[told + first : told + min(first + size, chunk.count)]
            yield Block(chunk.row, chunk.start + first, here, chunk.last and first + size >= chunk.count)
        told += chunk.count


def _told(newest: Mapping[int, int], places: Sequence[int]) -> list[list[int]]:
    """The token of every row, its place, and the columns before it that are not seen.

    Rows that are not asked read a token too, at the place that is written next: they see nothing but it, and it is
    written over by what really comes there.
    """
    tokens, pads = [0] * len(places), [*places]
    for row, token in newest.items():
        tokens[row], pads[row] = token, 0
    return [tokens, [*places], pads]


def _part(context: Context, rows: int, place: torch.Tensor, pad: torch.Tensor) -> Context:
    """The first `rows` of a context, which share what it keeps, with places of their own."""
    part = copy(context)
    part.rows, part.cache, part.place, part.pad = rows, context.cache[:, :, :rows], place, pad
    return part


class Newest(Recorded):
    """The step of one token in each of the first `rows`, each at a place of its own."""

    def __init__(self, weights: Weights, context: Context, rows: int):
        self.told = torch.zeros(3, rows, dtype=torch.long, device=context.place.device)
        tokens, places, pads = self.told
        super().__init__(Pass(weights, _part(context, rows, places, pads), 1))
        self.ids = tokens[:, None]

    def read(self, newest: Mapping[int, int], places: Sequence[int]) -> torch.Tensor:
        """Logits [rows, vocabulary] after a token of each row at its place."""
        self.told.copy_(torch.tensor(_told(newest, places)), non_blocking=True)
        return self.run()[:, 0]


class Piece(Recorded):
    """The reading of prompts in up to `blocks` of `size` tokens, beside one token of each of the first `rows`, if any.

    A block has a row and a place of its own, and several may be one prompt's: a layer keeps the keys of all before any
    of them looks. Blocks are filled up behind their last token, which none sees; what the filling has left is written
    over before it is seen. Blocks that stand for nothing lie behind the last column, where nothing is written.
    """

    def __init__(self, weights: Weights, context: Context, rows: int, blocks: int, size: int):
        self.context, self.rows, self.blocks, self.size = context, rows, blocks, size
        parts = [rows + blocks * size, rows, rows, context.rows, blocks, blocks]
        self.told = torch.zeros(sum(parts), dtype=torch.long, device=context.place.device)
        ids, places, pads, self.asked, self.texts, self.starts = self.told.split(parts)
        beside = _part(context, rows, places, pads)
        super().__init__(Pass(weights, beside, 1 if rows else WIDEST + 1))  # without rows no decode kernel runs
        self.ids = ids

    def read(self, blocks: Sequence[Block], newest: Mapping[int, int], places: Sequence[int]) -> torch.Tensor:
        """Logits [answers, vocabulary] after the newest tokens of some rows, and after the last blocks of prompts.

        `places` are those at which each row writes next, for those of the blocks the one behind them.
        """
        tokens, places, pads = _told(newest, places[: self.rows])
        spare = self.blocks - len(blocks)
        filled = [token for block in blocks for token in (*block.ids, *[0] * (self.size - len(block.ids)))]
        ends = [self.rows + at * self.size + len(block.ids) - 1 for at, block in enumerate(blocks) if block.last]
        asked = [*newest, *ends]
        told = [*tokens, *filled, *[0] * (spare * self.size), *places, *pads]
        told += [*asked, *[0] * (len(self.asked) - len(asked))]
        told += [*(block.row for block in blocks), *[0] * spare]
        told += [*(block.start for block in blocks), *[self.context.length] * spare]
        self.told.copy_(torch.tensor(told), non_blocking=True)
        return self.run()[: len(asked)]

    def body(self) -> None:
        steps = self.steps
        hidden = steps.run(steps.weights.embedding[self.ids], self._attention())
        self.logits = steps.logits(hidden.index_select(0, self.asked))

    def _attention(self) -> Attend:
        """Attention to whole slots behind a mask, so that neither rows nor places are in the recording.

        The heads that share keys stand in the place of several tokens.
        """
        context, weights, length = self.context, self.steps.weights, self.context.length
        columns = self.starts[:, None] + torch.arange(self.size, device=self.starts.device)
        angles = tuple(turn[columns.clamp(max=length - 1)] for turn in context.angles)
        seen = torch.arange(length, device=columns.device) <= columns[..., None]
        seen = seen.repeat(1, weights.heads // weights.kv_heads, 1)[:, None]

        def blocks(number: int, qkv: torch.Tensor) -> torch.Tensor:
            heads = qkv.view(self.blocks, self.size, -1, weights.size)
            q, k, v = heads.split([weights.heads, weights.kv_heads, weights.kv_heads], 2)
            kept, norm = context.cache[number], weights.layers[number].heads
            turned = rope_into_cache(q, k, v, angles, (kept[0], kept[1]), self.starts, norm, self.texts)
            keys, values = kept.index_select(1, self.texts)
            shared = turned.view(self.blocks, weights.kv_heads, -1, weights.size)
            found = scaled_dot_product_attention(shared, keys, values, attn_mask=seen)
            return found.reshape(self.blocks, weights.heads, self.size, -1).transpose(1, 2).flatten(0, 1).flatten(1)

        def attend(number: int, qkv: torch.Tensor) -> torch.Tensor:
            read = blocks(number, qkv[self.rows :])
            return torch.cat((self.steps.newest(number, qkv[: self.rows]), read)) if self.rows else read

        return attend
