"""Waiting: the jobs that have not begun, served person by person and not in the order of their coming."""

from collections import deque
from collections.abc import Iterator
from typing import Protocol


class Owned(Protocol):
    """Whatever waits has somebody who asked for it."""

    owner: str


class Waiting:
    """A line for each person; the first of each is served in turn. Whoever shares it holds the lock.

    Who is being served steps behind all others only when the next is taken. So somebody who comes meanwhile is before
    their second, and somebody who comes later is not: nobody is overtaken for ever.
    """

    def __init__(self) -> None:
        self.lines: dict[str, deque[Owned]] = {}
        self.served = ""

    def add(self, job: Owned) -> None:
        self.lines.setdefault(job.owner, deque()).append(job)

    def remove(self, job: Owned) -> None:
        """Raises KeyError or ValueError for one that does not wait."""
        self.lines[job.owner].remove(job)
        if not self.lines[job.owner]:
            del self.lines[job.owner]

    def __iter__(self) -> Iterator[Owned]:
        """In the order in which they will be served."""
        lines = [list(self.lines[owner]) for owner in self._turns()]
        for place in range(max(map(len, lines), default=0)):
            yield from (line[place] for line in lines if place < len(line))

    def __len__(self) -> int:
        return sum(map(len, self.lines.values()))

    def next(self, only: str | None = None) -> Owned | None:
        """Who is served next, None if nobody waits; with `only`, nobody else is."""
        return next((job for job in self if only in (None, job.owner)), None)

    def take(self, only: str | None = None) -> Owned:
        """Take out who is served next; somebody must wait."""
        job = self.next(only)
        self.lines = {owner: self.lines[owner] for owner in self._turns()}
        self.remove(job)
        self.served = job.owner
        return job

    def _turns(self) -> list[str]:
        return sorted(self.lines, key=lambda owner: owner == self.served)
