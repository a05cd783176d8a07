"""A round that was withdrawn leaves the figures on the lanes' cards, and is not the one that is replayed."""

import pytest

from components.race import Race
from engine.event import Conditions, Finished, Record, Request, Step
from engine.spec import Experiment

EXPERIMENT = Experiment.read(
    {"rounds": 2, "workload": {"prompts": "x", "max_new_tokens": 3}, "lanes": {"A": {}, "B": {}}}
)


def turn(lane: int, number: int, gap: float, **seen: float) -> list[Record]:
    steps = [Step(gap * (place + 1), (0,), ((place,),)) for place in range(3)]
    events = (Request(0.0, 0, 2), *steps, Conditions(9.0, 2.0, **seen), Finished(9.0))
    return [Record(lane, number, event) for event in events]


def test_the_pair_of_a_withdrawn_round_does_not_count_either():
    race = Race(EXPERIMENT)
    for number, gap in enumerate((0.1, 0.4, 0.2)):
        race.see(turn(0, number, gap) + turn(1, number, gap / 2, cores=2, others=1.0, waited=1.5 * (number == 1)))
    first = race.lanes[0]
    assert [lane.medians()["rate"] for lane in race.lanes] == pytest.approx([7.5, 15.0])
    assert [turn.number for turn in first.counted] == [0, 2] and first.typical() != 1


def test_with_nothing_left_the_figures_stay():
    race = Race(EXPERIMENT)
    race.see(turn(0, 0, 0.1, cores=2, others=1.0, waited=1.5))
    assert race.lanes[0].medians()["rate"] == pytest.approx(10.0)
