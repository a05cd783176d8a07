"""Watching a job: an append-only log of view lines that grows while the job runs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from engine.measure.machine import machine

FEW_CORES = 4
POLL_S = 0.2 if machine().cores > FEW_CORES else 0.5
"""Where the browser may share few cores with the engine it is told less often: what it draws takes from a step."""
BEAT_POLLS = 4
ENDED = {
    "finished": "done",
    "failed": "failed",
    "cancelled": "stopped",
    "interrupted": "stopped",
}
"""What the stage calls the end of a job."""


async def follow(
    jobs: Any, run: str, race: Any, opening: str, line: Callable[..., str], closing: Callable[[str], str]
) -> AsyncIterator[str]:
    """Yield what the log has grown by, from the first record on, until the job ends.

    `race` folds the records; `closing(state)` is the last line. A beat goes out even when nothing happens,
    so that a browser can tell a slow run from a lost connection.
    """
    seen, polls, place = 0, 0, -1
    yield opening
    while True:
        jobs.watch(run)
        state, position = jobs.state(run), jobs.position(run)
        records = jobs.records(run, seen)
        seen += len(records)
        race.see(records)
        added = race.tick()
        if state not in ENDED and (position != place or (not added and polls % BEAT_POLLS == 0)):
            added = line("beat", position=position, state=state, held=jobs.held(run)) + added
            place = position
        if state in ENDED:
            yield added + await asyncio.to_thread(closing, state)
            return
        if added:
            yield added
        polls += 1
        await asyncio.sleep(POLL_S)
