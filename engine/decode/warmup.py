"""Warming up: silent turns until two in a row take equally long, so that the first round is like the others."""

import time
from collections.abc import Callable, Sequence
from typing import Any

LEAST, MOST = 2, 4
AGREE = 0.03


def warm_up(
    turn: Callable[[], Any], together: bool = False, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Repeat a turn, at least twice, until two successive ones differ by less than 3 %; the seconds of each.

    Processes that take their turns `together` repeat it as often as can be: each has a clock of its own, and one that
    stopped before the others would leave them waiting for its part.
    """
    took: list[float] = []
    while len(took) < MOST:
        start = clock()
        turn()
        took.append(clock() - start)
        if len(took) >= LEAST and apart(took) < AGREE and not together:
            break
    return took


def apart(took: Sequence[float]) -> float:
    """By what share the last two turns differ."""
    return abs(took[-1] / took[-2] - 1)


def account(warmed: Sequence[Sequence[float]]) -> dict[str, Any] | None:
    """How many warm-ups were run and discarded, over all shapes of a lane, and whether the last two of each agreed."""
    if not warmed:
        return None
    furthest = max(map(apart, warmed))
    return {"runs": sum(map(len, warmed)), "apart": furthest, "agreed": furthest < AGREE}
