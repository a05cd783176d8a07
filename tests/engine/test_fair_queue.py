"""People take turns at the machine: who asks for much does not keep others waiting, and a held queue waits."""

import random
from dataclasses import dataclass

import pytest

from engine.run.jobs import Jobs
from engine.run.store import Store
from engine.run.waiting import Waiting
from tests.engine.test_jobs import simulated, wait


@dataclass
class Ticket:
    """Something that waits."""

    owner: str
    number: int


def line(*owners: str) -> Waiting:
    waiting = Waiting()
    for number, owner in enumerate(owners):
        waiting.add(Ticket(owner, number))
    return waiting


def served(waiting: Waiting) -> str:
    return "".join(waiting.take().owner for _ in range(len(waiting)))


@pytest.fixture
def jobs(tmp_path):
    jobs = Jobs(Store(tmp_path / "history.db"))
    yield jobs
    jobs.close()


@pytest.mark.parametrize(("asked", "order"), [("aaab", "abaa"), ("aabbc", "abcab"), ("abab", "abab"), ("aaa", "aaa")])
def test_each_persons_next_is_served_in_turn(asked, order):
    assert served(line(*asked)) == order
    tickets = [(one.owner, one.number) for one in line(*asked)]
    assert [owner for owner, _ in tickets] == list(order), "who looks at the line sees the order in which it is served"
    for owner in set(asked):
        assert [n for who, n in tickets if who == owner] == [n for n, who in enumerate(asked) if who == owner]


def test_who_comes_while_another_is_served_is_before_their_second_and_nobody_is_overtaken_for_ever():
    waiting = line("a", "a")
    assert waiting.take().owner == "a"
    waiting.add(Ticket("b", 9))
    waiting.add(Ticket("c", 9))
    assert [one.owner for one in waiting] == ["b", "c", "a"]
    order = ""
    for newcomer in "defg":
        order += waiting.take().owner
        waiting.add(Ticket(newcomer, 0))
    assert order == "bcad"


def test_the_order_that_is_told_is_the_order_that_comes():
    chance = random.Random(4)
    waiting = Waiting()
    for number in range(400):
        told = [(one.owner, one.number) for one in waiting]
        if told and chance.random() < 0.5:
            one = waiting.take()
            assert (one.owner, one.number) == told[0]
            assert [(one.owner, one.number) for one in waiting] == told[1:]
        elif told and chance.random() < 0.1:
            waiting.remove(chance.choice(list(waiting)))
        else:
            waiting.add(Ticket(chance.choice("abcd"), number))
        assert len(waiting) == len(list(waiting))


def test_five_runs_of_one_person_do_not_delay_the_first_of_another(jobs):
    many = [jobs.submit(simulated(tokens=40), "ann") for _ in range(5)]
    wait(jobs, many[0], ("running",))
    one = jobs.submit(simulated(), "bob")
    assert [jobs.position(run) for run in (*many, one)] == [0, 2, 3, 4, 5, 1]
    assert wait(jobs, one) == "finished"
    assert [jobs.state(run) for run in many[2:]] == ["queued"] * 3
    for run in many:
        assert wait(jobs, run) == "finished"


def test_a_held_queue_serves_only_whom_it_is_held_for(jobs):
    jobs.hold("room")
    mine = jobs.submit(simulated(), "ann")
    shared = jobs.submit(simulated(), "room")
    assert wait(jobs, shared) == "finished"
    assert jobs.state(mine) == "queued" and jobs.load()[1] == 1
    jobs.hold(None)
    assert wait(jobs, mine) == "finished" and jobs.load()[1] == 0


def test_what_runs_can_be_skipped_and_the_next_begins(jobs):
    assert not jobs.skip()
    long = jobs.submit(simulated(tokens=4000), "ann")
    wait(jobs, long, ("running",))
    following = jobs.submit(simulated(), "bob")
    assert jobs.skip()
    assert wait(jobs, long) == "cancelled" and wait(jobs, following) == "finished"
