"""The scheduler of continuous batching: who has a place, and what the next step reads. Pure logic without torch."""

from dataclasses import dataclass, field


@dataclass
class Seat:
    """A request in the engine: `place` in the workload, tokens of its prompt and answer, and how far it is.

    `read` prompt tokens have their keys and values kept; `made` tokens have been generated.
    """

    place: int
    prompt: int
    output: int
    read: int = 0
    made: int = 0

    @property
    def decoding(self) -> bool:
        return self.read == self.prompt

    @property
    def cached(self) -> int:
        """Tokens whose keys and values are kept: the newest token is read in the next step."""
        return self.read + max(0, self.made - 1)


@dataclass(frozen=True)
class Chunk:
    """A piece of a prompt that is read in one step: `count` tokens from `start`, into the slot of `row`."""

    row: int
    start: int
    count: int
    last: bool


@dataclass(frozen=True)
class Work:
    """What one step reads: one token for each of the `decoding` rows, and `chunks` of prompts."""

    decoding: tuple[int, ...]
    chunks: tuple[Chunk, ...]

    @property
    def answering(self) -> tuple[int, ...]:
        """Rows that receive a token by this step, in the order of the step's tokens."""
        return self.decoding + tuple(chunk.row for chunk in self.chunks if chunk.last)


@dataclass
class Scheduler:
    """First come, first served, over `slots` places; a step reads at most `chunk` tokens of prompts.

    Row r of the engine's slots belongs to `seats[r]`; when a request leaves, the last row moves into its hole,
    so the rows in use are always the first ones. Prompts are read in pieces beside the tokens of everybody
    else, so that a long prompt does not stop the answers of the others.
    Sources: Orca, OSDI 2022 (a batch that changes at every step); Sarathi-Serve, arXiv:2403.02310 (chunks).
    """

    slots: int
    chunk: int
    seats: list[Seat] = field(default_factory=list)

    @property
    def free(self) -> int:
        """Slots that nobody has."""
        return self.slots - len(self.seats)

    @property
    def cached(self) -> int:
        """Tokens kept for all requests together."""
        return sum(seat.cached for seat in self.seats)

    def admit(self, place: int, prompt: int, output: int) -> int:
        """Give a request the next slot and return its row. Raises ValueError where no slot is free."""
        if not self.free:
            raise ValueError("no slot is free")
        self.seats.append(Seat(place, prompt, output))
        return len(self.seats) - 1

    def work(self) -> Work:
        """What the next step reads: everybody's next token, and prompts as far as the chunk goes, oldest first."""
        decoding = tuple(row for row, seat in enumerate(self.seats) if seat.decoding)
        reading = [row for row, seat in enumerate(self.seats) if not seat.decoding]
        left, chunks = self.chunk, []
        for row in sorted(reading, key=lambda row: self.seats[row].place):
            seat = self.seats[row]
            count = min(left, seat.prompt - seat.read)
            if count:
                chunks.append(Chunk(row, seat.read, count, seat.read + count == seat.prompt))
            left -= count
        return Work(decoding, tuple(chunks))

    def done(self, work: Work) -> None:
        """The step ran: its chunks are read, and each answering row has one token more."""
        for chunk in work.chunks:
            self.seats[chunk.row].read += chunk.count
        for row in work.answering:
            self.seats[row].made += 1

    def leave(self, row: int) -> int:
        """Free a row and return the row whose slot must move into it (the row itself where none must)."""
        last = len(self.seats) - 1
        self.seats[row] = self.seats[last]
        self.seats.pop()
        return last


def places(slots: int, budget: int, slot_bytes: int, requests: int) -> int:
    """How many slots to allocate: as many as asked, as fit into `budget` bytes (0: no limit), and as can be used.

    Zero where the budget does not hold a single slot of `slot_bytes`.
    """
    fitting = budget // slot_bytes if budget else slots
    return min(slots, fitting, requests)
