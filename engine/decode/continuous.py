"""Continuous batching: requests come and go at every step of the engine, over slots."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from engine.decode.arrivals import Arrivals, InTurn
from engine.decode.prompts import Batch
from engine.decode.sampling import Sampling, check_finite
from engine.decode.scheduler import Scheduler, Work, places
from engine.decode.slots import Slots
from engine.event import Step
from engine.refusal import Refusal

ROUND = 64
"""Slots are rounded up to this many tokens, so that small changes of length reuse them."""
ROPES = ("dynamic", "longrope")
PROBE = 48
TOLERANCE = 0.05
"""A model is tried on this many tokens: its logits over slots may differ by this share, for rounding in 16 bits."""


class Kept(Protocol):
    """Slots: what keeps keys and values of `rows` requests of up to `length` tokens, and reads a step over them.

    `name` says what they are, `native` whether native steps read them. What a slot held before its request came is
    never seen.
    """

    name: str
    native: bool
    rows: int
    length: int

    def open(self) -> AbstractContextManager[None]:
        """Steps are read inside."""

    def read(self, work: Work, cached: Sequence[int], ids: Sequence[int]) -> torch.Tensor:
        """Logits [answering rows, vocabulary] in the order of Work.answering, good until the next step.

        `ids` are one token of each decoding row, then those of the chunks; `cached` the tokens that each row keeps.
        """

    def move(self, source: int, target: int, tokens: int) -> None:
        """Row `source`, of which `tokens` are kept, becomes row `target`, whose request has left."""

    def bytes(self) -> int:
        """Bytes that are allocated, whether used or not."""


class Engine:
    """One model with its slots, kept between turns; `run` takes the requests of one turn.

    `peak`, `chunks` and `admitted` count what ran in the newest turn: the most requests in one step, the steps
    that read a piece of a prompt beside other tokens, and the requests that were given a slot. `room` is how many
    slots could be used and would fit.
    """

    def __init__(self, model: Any, slots: Kept, chunk: int, room: int):
        self.model, self.slots, self.chunk, self.room = model, slots, chunk, room
        self.peak = self.chunks = self.admitted = 0

    def kv_bytes(self) -> int:
        return self.slots.bytes()

    def cache_name(self) -> str:
        return self.slots.name

    @property
    def native(self) -> bool:
        return self.slots.native

    def facts(self) -> dict[str, Any]:
        """What the newest turn really did."""
        counted = {"peak": self.peak, "chunks": self.chunks, "admitted": self.admitted}
        if not self.admitted:
            return {"kind": None, **counted}
        ran = self.scheduler
        return {"kind": "slots", "slots": ran.slots, "room": self.room, "chunk": ran.chunk, **counted}

    def run(self, source: Arrivals | InTurn, sampling: Sampling) -> None:
        """Until every request of the source has its answer: take who waits, run a step, let go who is done."""
        self.peak = self.chunks = self.admitted = 0
        self.scheduler = Scheduler(self.slots.rows, self.chunk)
        self.source, self.sampling = source, sampling
        self.choose = sampling.chooser(self.model.device)
        self.newest: dict[int, int] = {}
        with self.slots.open():
            while source.left or self.scheduler.seats:
                self._admit()
                self._step()

    def _admit(self) -> None:
        """Whoever waits takes a free slot; with nobody in the engine, wait for somebody."""
        if not self.scheduler.seats:
            self.source.wait()
        self.source.look()
        whole = self.source.whole
        for place in self.source.take(self.scheduler.free):
            self.scheduler.admit(place, len(whole.prompts[place]), whole.lengths[place])
            self.admitted += 1

    def _step(self) -> None:
        work = self.scheduler.work()
        cached = [seat.cached for seat in self.scheduler.seats]
        logits = self.slots.read(work, cached, self._ids(work))
        if len(work.answering) > len(work.decoding):
            check_finite(logits[:, None])
        tokens = self.choose(logits[:, None])[:, 0].tolist() if work.answering else []
        self.scheduler.done(work)
        self.chunks += bool(work.chunks)
        self.peak = max(self.peak, len(work.answering))
        if tokens:
            self._emit(work, tokens)
        self._leave(work, tokens)

    def _ids(self, work: Work) -> list[int]:
        """The tokens that a step reads, in the order in which the slots expect them."""
        seats, prompts = self.scheduler.seats, self.source.whole.prompts
        ids = [self.newest[seats[row].place] for row in work.decoding]
        for chunk in work.chunks:
            ids += prompts[seats[chunk.row].place][chunk.start : chunk.start + chunk.count]
        return ids

    def _emit(self, work: Work, tokens: list[int]) -> None:
        seats = self.scheduler.seats
        who = [seats[row].place for row in work.answering]
        self.newest.update(zip(who, tokens, strict=True))
        requests = tuple(self.source.whole.requests[place] for place in who)
        made = tuple((token,) for token in tokens)
        self.source.emit(Step(time.perf_counter(), requests, made, cached=self.scheduler.cached))

    def _leave(self, work: Work, tokens: list[int]) -> None:
        """Free the slots of those who are done, from the last row down, so that no row moves that is to go."""
        seats = self.scheduler.seats
        ended = [row for row, token in zip(work.answering, tokens, strict=True) if self._done(row, token)]
        for row in sorted(ended, reverse=True):
            source = self.scheduler.leave(row)
            if source != row:
                self.slots.move(source, row, seats[row].cached)

    def _done(self, row: int, token: int) -> bool:
        seat = self.scheduler.seats[row]
        stopped = not self.sampling.fixed_length and token in self.sampling.stop
        return stopped or seat.made >= seat.output


def engine(model: Any, whole: Batch, knobs: dict[str, Any], kv_bytes: float, native: Any = None) -> Engine:
    """An engine for these requests. `kv_bytes` are those of one token's keys and values in all layers.

    A slot holds the longest of the requests. `native` reads the steps if given, otherwise the model's modules do.
    Raises Refusal where the memory budget does not hold one slot, or where the model turns its positions by the length
    of the whole text, which differs between requests.
    """
    length = -(-whole.tokens // ROUND) * ROUND
    limits = (int(knobs["memory_mb"] * 1e6), int(kv_bytes * length), len(whole.requests))
    rows, room = places(knobs["slots"], *limits), places(len(whole.requests), *limits)
    if not rows:
        raise Refusal(
            f"A slot of {length} tokens needs {kv_bytes * length / 1e6:.0f} MB for its keys and values, "
            f"but the memory for slots is {knobs['memory_mb']} MB.",
            "Allow more memory, or shorten the prompts or the output.",
        )
    _check_positions(model, length)
    if native:
        return Engine(model, native.slots(rows, length, knobs["chunk"]), knobs["chunk"], room)
    _check_attention(model, whole.prompts[0][:PROBE])
    return Engine(model, Slots(model, rows, length), knobs["chunk"], room)


def _check_attention(model: Any, prompt: tuple[int, ...]) -> None:
    """Raises Refusal unless a prompt read in two chunks over slots gives the logits of the model's own attention.

    Some architectures compute attention past transformers' interface or add to it what slots do not know.
    """
    expected = model(torch.tensor([prompt], device=model.device), use_cache=False, logits_to_keep=1).logits[0, -1]
    check_finite(expected[None, None])
    slots, scheduler = Slots(model, 1, len(prompt)), Scheduler(1, max(1, len(prompt) // 2))
    scheduler.admit(0, len(prompt), 1)
    found = expected.new_zeros(0)
    with slots.open():
        while not scheduler.seats[0].decoding:
            work = scheduler.work()
            chunk = work.chunks[0]
            found = slots.read(work, [chunk.start], prompt[chunk.start : chunk.start + chunk.count])
            scheduler.done(work)
    if len(slots.layers) == 0 or not (found[0] - expected).float().norm() <= TOLERANCE * expected.float().norm():
        raise Refusal(
            f"{type(model).__name__} computes its attention in a way that slots of different lengths do not follow.",
            "Use static batching for this model.",
        )


def _check_positions(model: Any, length: int) -> None:
    config = model.config
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    native = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    if rope.get("rope_type") in ROPES and length > (native or config.max_position_embeddings):
        raise Refusal(
            f"Beyond {native or config.max_position_embeddings} tokens this model turns its positions by the length "
            "of the whole text, so requests of different lengths cannot share a step.",
            "Shorten the prompts or the output, or use static batching.",
        )
