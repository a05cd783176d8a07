"""Sender: a worker's events leave in a thread of their own."""

import json
import os
import queue
import threading
from collections.abc import Callable

from engine.event import Event, Failed, Memory, Step, to_dict

PAUSE_S = 0.1
"""Steps wait so long and leave together: a thread that wakes for each of them takes a core from the next."""
PATIENT = (Step, Memory)


class Sender:
    """Neither a slow reader nor the text's decoding delays a step. `deliver` is called with one event after another.

    What is no step and no sample leaves at once, with all that came before it.
    """

    def __init__(self, deliver: Callable[[Event], None], rank: int = 0):
        self.deliver, self.rank = deliver, rank
        self.waiting: queue.SimpleQueue = queue.SimpleQueue()
        self.hurry = threading.Event()
        self.thread = threading.Thread(target=self._send, name="sender", daemon=True)
        self.thread.start()

    def put(self, event: Event, say: Callable[[Step], Step]) -> None:
        """Rank 0 speaks for all ranks of a lane; the others only of their own memory and of what broke them."""
        own = isinstance(event, Memory) or (isinstance(event, Failed) and event.status != "cancelled")
        if self.rank == 0 or own:
            self.waiting.put((event, say))
            if not isinstance(event, PATIENT):
                self.hurry.set()

    def close(self) -> None:
        """Deliver what is waiting, and no more."""
        self.waiting.put(None)
        self.hurry.set()

    def _send(self) -> None:
        while (item := self.waiting.get()) is not None:
            event, say = item
            if isinstance(event, PATIENT) and self.waiting.empty():
                self.hurry.wait(PAUSE_S)
                self.hurry.clear()
            self.deliver(say(event) if isinstance(event, Step) else event)


def lines(descriptor: int, rank: int = 0) -> Callable[[Event], None]:
    """Writes events as JSON lines."""

    def write(event: Event) -> None:
        named = {"rank": rank} if rank else {}
        view = memoryview((json.dumps({**to_dict(event), **named}, separators=(",", ":")) + "\n").encode())
        while view:
            view = view[os.write(descriptor, view) :]

    return write
