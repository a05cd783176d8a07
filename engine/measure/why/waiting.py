"""A rule on a GPU that waits: how long its kernels run of each step, and how often the host starts work on it."""

from dataclasses import dataclass

from engine.measure.why.evidence import QUICKER, Finding, Pair, Side, ms, percent, said

MOST = 0.5
"""From this share on waiting is what a step, or the difference between two, is made of."""
FEWER_CALLS = 1.1
"""So many times the calls of the quicker lane, or its steps are not shorter for being started in fewer."""
SHARED = 1.1
"""With more requests in a step than this it is another one than was profiled."""


@dataclass(frozen=True)
class Wait:
    """Milliseconds of a step and of its kernels, and how many of those are started by how many calls."""

    step: float
    busy: float
    calls: int
    kernels: int

    @property
    def waited(self) -> float:
        return self.step - self.busy

    @property
    def share(self) -> float:
        return self.waited / self.step

    def started(self) -> str:
        """How its work is started, in words."""
        if self.calls >= self.kernels:
            return f"{self.kernels:,} kernels are started one by one"
        calls = "one call starts" if self.calls == 1 else f"{self.calls:,} calls start"
        return f"{calls} all {self.kernels:,} kernels"


def waiting(pair: Pair) -> Finding | None:
    """Kernels are started by the host: many small ones take longer to start than to run."""
    mine, other = _wait(pair.lane), _wait(pair.over)
    if not mine or not other or max(mine.share, other.share) < MOST:
        return None
    word = pair.moved("tpot_ms")
    evidence = {"step_ms": mine.step, "busy_ms": mine.busy, "calls": mine.calls,
                "over_step_ms": other.step, "over_busy_ms": other.busy, "over_calls": other.calls}  # fmt: skip
    if word not in ("faster", "slower"):
        both = min(mine.share, other.share) >= MOST
        return Finding("waiting", _both(pair, mine, other), evidence, word or "same", QUICKER) if both else None
    (slow, long), (fast, short) = sorted(((pair.lane, mine), (pair.over, other)), key=lambda side: -side[1].step)
    if (slow is pair.lane) != (word == "slower") or long.waited - short.waited < MOST * (long.step - short.step):
        return None
    if long.calls < FEWER_CALLS * short.calls:
        return None
    sentence = (
        f"In {slow.name} the GPU computes for {ms(long.busy)} of each step of {ms(long.step)} and waits for the host "
        f"for the rest: {long.started()}. In {fast.name} {short.started()}, in {ms(short.step)}."
    )
    return Finding("waiting", sentence, evidence, word, QUICKER if word == "slower" else ())


def _wait(side: Side) -> Wait | None:
    """None off a GPU, and where the step that was profiled is not the one that ran."""
    found, step = side.get("effective.launches"), side.step_ms
    if not found or found.get("busy_ms") is None or not step or side.guesses or side.in_flight > SHARED:
        return None
    return Wait(step, min(found["busy_ms"], step), found["calls"], found["total"])


def _both(pair: Pair, mine: Wait, other: Wait) -> str:
    often = (
        f"{mine.calls:,} times in both" if mine.calls == other.calls else f"{mine.calls:,} and {other.calls:,} times"
    )
    return said(
        f"{pair.lane.name} waits for the host in {percent(mine.share)} of a step and {pair.over.name} in "
        f"{percent(other.share)}: {often} it starts something on the GPU, which has little to do each time, so what "
        f"the kernels read or compute makes no difference."
    )
