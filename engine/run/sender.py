"""Sender: a worker's events leave in a thread of their own."""

import json
import os
import queue
import threading
from collections.abc import Callable

from engine.event import Event, Failed, Memory, Step, to_dict


class Sender:
    """Neither a slow reader nor the text's decoding delays a step. `deliver` is called with one event after another."""

    def __init__(self, deliver: Callable[[Event], None], rank: int = 0):
        self.deliver, self.rank = deliver, rank
        self.waiting: queue.SimpleQueue = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._send, name="sender", daemon=True)
        self.thread.start()

    def put(self, event: Event, say: Callable[[Step], Step]) -> None:
        """Rank 0 speaks for all ranks of a lane; the others only of their own memory and of what broke them."""
        own = isinstance(event, Memory) or (isinstance(event, Failed) and event.status != "cancelled")
        if self.rank == 0 or own:
            self.waiting.put((event, say))

    def close(self) -> None:
        """Deliver what is waiting, and no more."""
        self.waiting.put(None)

    def _send(self) -> None:
        while (item := self.waiting.get()) is not None:
            event, say = item
            self.deliver(say(event) if isinstance(event, Step) else event)


def lines(descriptor: int, rank: int = 0) -> Callable[[Event], None]:
    """Writes events as JSON lines."""

    def write(event: Event) -> None:
        named = {"rank": rank} if rank else {}
        view = memoryview((json.dumps({**to_dict(event), **named}, separators=(",", ":")) + "\n").encode())
        while view:
            view = view[os.write(descriptor, view) :]

    return write
