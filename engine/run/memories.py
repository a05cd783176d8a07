"""Memories: the memory of a lane that is several processes is the sum of what each of them last said."""

from dataclasses import fields, replace

from engine.event import Memory

COUNTED = tuple(field.name for field in fields(Memory) if field.name != "t")


class Memories:
    """The newest Memory event of each process, by any key."""

    def __init__(self) -> None:
        self.newest: dict[int, Memory] = {}

    def add(self, process: int, event: Memory) -> Memory:
        """The event with every process' bytes added up; what nobody knows stays None."""
        self.newest[process] = event
        return Memory(event.t, *(self._sum(name) for name in COUNTED))

    def rest(self) -> None:
        """A turn begins: the peaks of what came before, of loading for instance, are over."""
        self.newest = {key: replace(event, peak=event.rss) for key, event in self.newest.items() if event.rss}

    def _sum(self, name: str) -> int | None:
        known = [value for event in self.newest.values() if (value := getattr(event, name)) is not None]
        return sum(known) if known else None
