"""The end of a decode step on the device: the greedy choice, the step's counters, and a mailbox that the host reads."""

import time
from dataclasses import dataclass, field

import torch
import triton
import triton.language as tl

from engine.refusal import Refusal

COLUMNS = 2048
"""Logits that one program looks at; to be varied on a GPU."""
LOOK_S = 20e-6
"""Pause between two looks into the mailbox."""


@triton.jit
def _ended(
    token, row, rows, newest, places, steps, ring, words, stamps, embedding, hidden, arrived, slots, width,
    MAILBOX: tl.constexpr, STAMPED: tl.constexpr, EMBEDDED: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """One row's token to all who want it; the program of the last row moves the counters that all have read."""
    step, place = tl.load(steps), tl.load(places)
    at = step % slots * rows + row
    tl.store(ring + at, token)
    if MAILBOX:
        if STAMPED:
            tl.store(stamps + at, tl.extra.cuda.globaltimer())
        tl.store(words + at, (step << 32) | (token & 0xFFFFFFFF))
    token = tl.maximum(token, 0)  # what is not a number still needs a row of the embedding
    tl.store(newest + row, token)
    if EMBEDDED:
        column = tl.arange(0, WIDTH)
        vector = tl.load(embedding + token * width + column, mask=column < width)
        tl.store(hidden + row * width + column, vector, mask=column < width)
    tl.debug_barrier()  # the counters have been read
    if tl.atomic_add(arrived, 1, sem="acq_rel", scope="gpu") == rows - 1:
        tl.store(arrived, 0)
        tl.store(places, place + 1)
        tl.store(steps, step + 1)


@triton.jit
def _advanced(
    chosen, newest, places, steps, ring, words, stamps, embedding, hidden, arrived, slots, width,
    MAILBOX: tl.constexpr, STAMPED: tl.constexpr, EMBEDDED: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """One program for each row."""
    row = tl.program_id(0).to(tl.int64)
    _ended(
        tl.load(chosen + row), row, tl.num_programs(0), newest, places, steps, ring, words, stamps, embedding, hidden,
        arrived, slots, width, MAILBOX, STAMPED, EMBEDDED, WIDTH,
    )  # fmt: skip


@triton.jit
def _block_peak(logits, banned, row, column, columns, bans):
    """The highest logit of a block and its lowest id; infinity and -1 for a block that holds a NaN."""
    found = tl.load(logits + row * columns + column, mask=column < columns, other=float("-inf")).to(tl.float32)
    for ban in range(bans):
        found = tl.where(column == tl.load(banned + ban), float("-inf"), found)
    broken = tl.max((found != found).to(tl.int32), axis=0)
    found = tl.where(found != found, float("inf"), found)
    peak, place = tl.max(found, axis=0, return_indices=True)
    return peak, place, broken


@triton.jit
def chosen(
    block, row, blocks, rows, logits, banned, peaks, ids, met, newest, places, steps, ring, words, stamps, embedding,
    hidden, arrived, slots, width, columns, bans,
    MAILBOX: tl.constexpr, STAMPED: tl.constexpr, EMBEDDED: tl.constexpr, WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """One of the `blocks` of a row's logits; whoever ends the last of a row compares what all have found."""
    peak, place, broken = _block_peak(logits, banned, row, block * COLUMNS + tl.arange(0, COLUMNS), columns, bans)
    tl.store(peaks + row * blocks + block, peak)
    tl.store(ids + row * blocks + block, tl.where(broken > 0, -1, block * COLUMNS + place))
    tl.debug_barrier()  # both have been written before the program says so
    if tl.atomic_add(met + row, 1, sem="acq_rel", scope="gpu") == blocks - 1:
        tl.store(met + row, 0)
        other = tl.arange(0, BLOCKS)
        # read past the first cache, which may be stale
        found = tl.load(peaks + row * blocks + other, other < blocks, other=float("-inf"), cache_modifier=".cg")
        own = tl.load(ids + row * blocks + other, other < blocks, other=2147483647, cache_modifier=".cg")
        highest = tl.max(found, axis=0)
        token = tl.min(tl.where(found == highest, own, 2147483647), axis=0).to(tl.int64)
        token = tl.where(highest == float("-inf"), -1, token)
        _ended(
            token, row, rows, newest, places, steps, ring, words, stamps, embedding, hidden,
            arrived, slots, width, MAILBOX, STAMPED, EMBEDDED, WIDTH,
        )  # fmt: skip


@triton.jit
def _greedy(
    logits, banned, peaks, ids, met, newest, places, steps, ring, words, stamps, embedding, hidden, arrived,
    slots, width, columns, bans,
    MAILBOX: tl.constexpr, STAMPED: tl.constexpr, EMBEDDED: tl.constexpr, WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """One program for each block of each row's logits."""
    block, row, blocks = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.num_programs(0)
    chosen(
        block, row, blocks, tl.num_programs(1), logits, banned, peaks, ids, met, newest, places, steps, ring, words,
        stamps, embedding, hidden, arrived, slots, width, columns, bans,
        MAILBOX, STAMPED, EMBEDDED, WIDTH, COLUMNS, BLOCKS,
    )  # fmt: skip


class Mailbox:
    """Tokens in the host's memory, written there by the device as they are chosen: nothing is copied or waited for.

    words [slots, rows] int64: step << 32 | token, for `step` in slot step % slots; all 32 bits of the token are set
    where a logit was not a number, or none was finite. stamps [slots, rows] int64: the device's clock at that moment,
    ns; zero in the interpreter. Read the stamps after the device has been waited for.
    """

    def __init__(self, slots: int, rows: int, device: torch.device | str):
        pinned = torch.device(device).type == "cuda"
        self.words = torch.full((slots, rows), -1, dtype=torch.int64, pin_memory=pinned)
        self.stamps = torch.zeros(slots, rows, dtype=torch.int64, pin_memory=pinned)
        self._seen = self.words.numpy()

    def clear(self) -> None:
        """Forget all steps; nothing may be under way."""
        self.words.fill_(-1)
        self.stamps.zero_()

    def read(self, step: int, timeout_s: float = 30.0) -> list[int]:
        """The tokens of all rows at `step`, as soon as they are there; -1 for what is not a number.

        Raises Refusal if they are not there in time, or if the ring has gone round since.
        """
        words, end = self._seen[step % len(self._seen)], time.monotonic() + timeout_s
        while (words >> 32 != step).any():
            if (words >> 32).max() > step:
                raise Refusal(
                    f"The tokens of step {step} have been written over.", "Read them before the ring is full."
                )
            if time.monotonic() > end:
                raise Refusal(
                    f"The device wrote no token for step {step} within {timeout_s:g} s.",
                    "Start the run again; if it happens again, choose another decoder.",
                )
            time.sleep(LOOK_S)
        low = words & 0xFFFFFFFF
        return [-1 if token == 0xFFFFFFFF else token for token in low.tolist()]


@dataclass
class Feed:
    """Where a step's tokens go, and what the next step finds there; all int64 on the device unless said.

    tokens [rows]: the newest; place [1] and step [1]: moved on by one each time, by the last program; ring [slots,
    rows]: token of step s in slot s % slots, -1 where a logit was not a number; mailbox: the same for the host, if any.
    embedding [vocabulary, width], if given: the newest tokens' rows go to `hidden` [rows, width], in its number format.
    """

    tokens: torch.Tensor
    place: torch.Tensor
    step: torch.Tensor
    ring: torch.Tensor
    mailbox: Mailbox | None = None
    embedding: torch.Tensor | None = None
    hidden: torch.Tensor | None = None
    arrived: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.arrived = torch.zeros(1, dtype=torch.int32, device=self.tokens.device)
        for part in (self.embedding, self.hidden):
            if part is not None and not part.is_contiguous():
                raise ValueError("The embedding and the hidden states must be dense.")


@dataclass(frozen=True)
class Peaks:
    """Room for the maxima of the blocks: peaks float32 and ids int32 [rows, blocks]; met int32 [rows], zero between."""

    peaks: torch.Tensor
    ids: torch.Tensor
    met: torch.Tensor


def room(rows: int, vocabulary: int, device: torch.device | str) -> Peaks:
    """The workspace of `argmax_advance` for logits [rows, vocabulary]."""
    blocks = triton.cdiv(vocabulary, COLUMNS)
    ids, met = (torch.zeros(*shape, dtype=torch.int32, device=device) for shape in ((rows, blocks), (rows,)))
    return Peaks(torch.zeros(rows, blocks, device=device), ids, met)


def argmax_advance(logits: torch.Tensor, feed: Feed, peaks: Peaks, banned: torch.Tensor | None = None) -> None:
    """Choose the highest logit of each row, the lowest id of equals, and end the step with it, in one launch.

    logits [rows, vocabulary], dense, of any float format; banned: int64 ids that are never chosen, or None;
    peaks: of `room`. All of `feed` is written. Nothing is allocated or read by the host.
    """
    rows, columns = logits.shape
    blocks = peaks.peaks.shape[1]
    if not logits.is_contiguous() or blocks != triton.cdiv(columns, COLUMNS):
        raise ValueError("The logits must be dense, and the room made for their width.")
    bans = 0 if banned is None else len(banned)
    given, flags = ends(feed)
    _greedy[(blocks, rows)](
        logits, banned if bans else feed.tokens, peaks.peaks, peaks.ids, peaks.met, *given, columns, bans,
        **flags, COLUMNS=COLUMNS, BLOCKS=triton.next_power_of_2(blocks), num_warps=4,
    )  # fmt: skip


def advance(tokens: torch.Tensor, feed: Feed) -> None:
    """End the step with tokens chosen elsewhere, int64 [rows] on the device, in one launch."""
    given, flags = ends(feed)
    _advanced[(len(feed.tokens),)](tokens, *given, **flags, num_warps=4)


def ends(feed: Feed) -> tuple[tuple, dict]:
    """The arguments of `_ended` that `feed` knows: a tensor stands in for what is not there."""
    embedded, box, unused = feed.embedding is not None, feed.mailbox, feed.tokens
    width = feed.embedding.shape[1] if embedded else 1
    words, stamps = (box.words, box.stamps) if box else (unused, unused)
    vectors = (feed.embedding, feed.hidden) if embedded else (unused, unused)
    given = feed.tokens, feed.place, feed.step, feed.ring, words, stamps, *vectors, feed.arrived, len(feed.ring), width
    flags = {"MAILBOX": box is not None, "STAMPED": not triton.knobs.runtime.interpret, "EMBEDDED": embedded}
    return given, flags | {"WIDTH": triton.next_power_of_2(width)}
