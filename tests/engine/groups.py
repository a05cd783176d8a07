"""What the tests of lanes with several processes share: running lanes, and looking at what came and who is left."""

import time
from collections.abc import Callable

import psutil

from engine.event import TERMINAL, Event, Failed, Finished, Record, Step
from engine.run.pool import Pool
from engine.run.runner import Run
from engine.spec import Experiment


def experiment(lanes: dict, rounds: int = 1, model: str = "smollm2-135m", **workload) -> Experiment:
    work = {"prompts": ["go"], "max_new_tokens": 8, **workload}
    return Experiment.read({"model": str(model), "rounds": rounds, "workload": work, "lanes": lanes})


def run(chosen: Experiment, pool: Pool) -> list[Record]:
    return list(Run(chosen, pool).records())


def tokens(records: list[Record], lane: int = 0, round: int = 0) -> dict[int, list[int]]:
    """The tokens of every request of a turn, in the order in which they came. A lane that failed says why."""
    failed = [
        event for event in events(records, lane, None) + events(records, lane, round) if isinstance(event, Failed)
    ]
    assert not failed, failed
    made: dict[int, list[int]] = {}
    for event in events(records, lane, round):
        for request, new in zip(event.requests, event.tokens, strict=True) if isinstance(event, Step) else ():
            made.setdefault(request, []).extend(new)
    return made


def events(records: list[Record], lane: int = 0, round: int | None = 0) -> list[Event]:
    return [record.event for record in records if (record.lane, record.round) == (lane, round)]


def end(records: list[Record], lane: int = 0, round: int | None = 0) -> Event:
    """The one event that ends a stream."""
    *before, last = events(records, lane, round)
    assert isinstance(last, TERMINAL) and not any(isinstance(event, TERMINAL) for event in before)
    return last


def finished(records: list[Record], lane: int = 0, round: int | None = 0) -> dict:
    """What really ran, of a turn that ended well."""
    last = end(records, lane, round)
    assert isinstance(last, Finished), last
    return last.effective


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_until(true: Callable[[], bool], seconds: float = 20.0) -> bool:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if true():
            return True
        time.sleep(0.02)
    return False
