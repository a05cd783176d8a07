"""Withdrawal: which turns cannot be used because of what happened on the machine meanwhile."""

from engine.event import Conditions

WAITED, WAIT_S = 0.25, 0.005
"""Cores' worth of waiting from which a turn is withdrawn, beyond a few milliseconds. On two cores a quiet turn waits
for up to 0.02, beside a browser that draws this page for 0.15, and beside a program that fills a core for 0.43."""
CROWDED, ROOM = 0.6, 0.25
"""Where waiting is not counted: cores that others may use, or this share of what stayed idle."""
GRAIN_S = 0.05
"""Processor times are counted in hundredths of a second: less than this is not told from nothing."""
SWAPPED = 2**20
FAULTS_PER_S = 50
"""A page that comes from a disk costs 0.1 to 10 ms."""
HELD = 0.02
HEAT = 0.01
SUSPENDED_S = 0.1
SLOW_CLOCK = 0.75
"""Share of the run's fastest GPU clock below which a turn is withdrawn, as in NVIDIA's nvbench."""


def withdrawn(found: Conditions, fastest: float | None = None, steady: bool = False) -> str | None:
    """Why a turn under these conditions cannot be used, as a clause; None if it can.

    `fastest` is the highest GPU clock in MHz among the turns of the run. Under a `steady` load of other programs
    that load is no reason.
    """
    rules = (_asleep, _strange, _hot, _held, _short, _recompiled, *(() if steady else (_crowded,)))
    reasons = (rule(found) for rule in rules)
    return _clock(found, fastest) or next(filter(None, reasons), None)


def _asleep(found: Conditions) -> str | None:
    slept = (found.suspended or 0.0) > SUSPENDED_S
    return f"the machine slept for {found.suspended:.1f} s" if slept else None


def _strange(found: Conditions) -> str | None:
    if not found.strangers:
        return None
    many = "another process" if found.strangers == 1 else f"{found.strangers} other processes"
    return f"{many} computed on the GPU"


def _hot(found: Conditions) -> str | None:
    if (found.heat or 0.0) > HEAT * found.seconds:
        return "heat or a power brake slowed the GPU down"
    if found.throttles:
        return "heat slowed the processor down"
    return None


def _held(found: Conditions) -> str | None:
    if (found.held or 0.0) <= HELD * found.seconds:
        return None
    return f"a quota of processor time held the lane back for {found.held / found.seconds:.0%} of the time"


def _clock(found: Conditions, fastest: float | None) -> str | None:
    if not found.clock or not fastest or found.clock >= SLOW_CLOCK * fastest:
        return None
    return f"the GPU's clock was down to {found.clock:.0f} of {fastest:.0f} MHz"


def _short(found: Conditions) -> str | None:
    if (found.swapped or 0) > SWAPPED:
        return f"memory was short and {found.swapped / 1e6:.0f} MB were swapped"
    if (found.faults or 0) > FAULTS_PER_S * max(1.0, found.seconds):
        return f"{found.faults} pages of memory had to come from the disk"
    return None


def _recompiled(found: Conditions) -> str | None:
    return "a step was compiled again in the middle of it" if found.recompiles else None


def _crowded(found: Conditions) -> str | None:
    """Others harm a lane when it waits for a core; cores to spare cost it nothing.

    A lane with more threads than cores waits for itself: others cannot have held it up for longer than they ran.
    """
    if found.waited is not None:
        held_up = found.waited - WAIT_S
        crowded = min(held_up, held_up if found.others is None else found.others) > WAITED * found.seconds
    elif found.others is not None and found.idle is not None:
        allowed = max(CROWDED * found.seconds, ROOM * found.idle)
        crowded = found.others - GRAIN_S > allowed
    else:
        return None
    used = max(0.0, found.others or 0.0) / found.seconds
    return f"other programs used {used:.1f} of {found.cores} cores" if crowded else None
