"""Lanes of the history as the columns of a comparison."""

from collections.abc import Sequence

from engine.measure.comparison import Column
from engine.refusal import Refusal
from engine.run.store import Store

FEWEST, MOST = 2, 8


def columns(store: Store, named: Sequence[str]) -> list[Column]:
    """The lanes that `ID:LANE` names; `ID` means all of a run. Raises Refusal for one that is not there, too few, many.

    An id may be the beginning of one.
    """
    made = [column for name in named for column in _columns(store, name)]
    if not FEWEST <= len(made) <= MOST:
        why = f"{len(made)} lane{'s' if len(made) != 1 else ''} cannot be compared: choose {FEWEST} to {MOST}."
        raise Refusal(why, "On the command line, ID:LANE names one lane of a run.")
    return made


def _columns(store: Store, name: str) -> list[Column]:
    run, _, lane = name.partition(":")
    row = store.run(run)
    if not row["result"]:
        raise Refusal(f"Run {row['id'][:8]} has no result: it is {row['state']}.", "Choose one that has ended.")
    there = [found["name"] for found in row["result"]["lanes"]]
    if lane and lane not in there:
        raise Refusal(f"Run {row['id'][:8]} has no lane {lane}.", f"It has {', '.join(there)}.")
    chosen = [lane] if lane else there
    said = row.get("recorded", "")
    return [Column(row["id"], row["created"], row["title"], row["result"], one, said) for one in chosen]
