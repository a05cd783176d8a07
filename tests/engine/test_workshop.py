"""A workshop's room: who gets in, who may do what, when a guess counts, and what the board shows to whom."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.lessons import lessons
from engine.refusal import Refusal
from engine.run.jobs import Jobs
from engine.run.store import Store
from engine.run.workshop import AWAY_S, SEATS, Workshop, numbers
from tests.engine.test_jobs import simulated, wait

NUMBER, WORD = "how-fast-is-a-timetable", "which-timetable-is-first"


class Clock:
    """Time that stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def jobs(tmp_path):
    jobs = Jobs(Store(tmp_path / "history.db"))
    yield jobs
    jobs.close()


@pytest.fixture
def room(jobs):
    return Workshop(jobs, lessons(True), Clock())


@pytest.fixture
def leader(room):
    return room.enter(room.code, secret=room.secret)


def ended(room: Workshop, token: str) -> dict:
    wait(room.jobs, room.view(token)["run"])
    return room.view(token)


def test_a_code_lets_in_and_a_wrong_one_does_not(room):
    one, two = room.enter(room.code.lower() + " "), room.enter(room.code, "  Ada\n\tLovelace  ")
    assert room.view(one)["name"] == "Guest 1" and room.view(two)["name"] == "Ada Lovelace"
    assert not room.view(one)["leads"]
    for wrong in ("", "ABC", room.code[:-1], room.code + "A"):
        with pytest.raises(Refusal, match="no room with this code"):
            room.enter(wrong)
    with pytest.raises(Refusal, match="not the presenter's link"):
        room.enter(room.code, secret="guessed")
    with pytest.raises(Refusal, match="no seat"):
        room.view("nobody")


def test_only_the_presenter_leads(room, leader):
    guest = room.enter(room.code)
    for act in (
        lambda: room.pick(guest, NUMBER),
        lambda: room.start(guest),
        lambda: room.pause(guest, True),
        lambda: room.skip(guest),
    ):
        with pytest.raises(Refusal, match="Only the presenter"):
            act()
    assert room.view(leader)["leads"] and room.view(guest)["lesson"] is None


def test_the_links_hold_the_secret_only_for_the_presenter(room):
    everywhere = Workshop(room.jobs, {}, host="0.0.0.0")
    everywhere.code, everywhere.secret = room.code, room.secret
    assert everywhere.numbers == numbers() and not room.numbers
    everywhere.numbers = everywhere.numbers or ["192.0.2.7"]  # a machine without a network still says how one would
    everybody, presenter, *phones = everywhere.links(7860).splitlines()[1:]
    assert all(re.search(rf"http://\d+(\.\d+){{3}}:7860/\?room={room.code}$", line) for line in phones)
    assert len(phones) == len(everywhere.numbers) and not any("127.0.0.1" in line for line in phones), (
        "what a phone would open is its own"
    )
    assert room.code in everybody and room.secret not in everybody and room.secret in presenter
    assert "Only this computer" in room.links(7860) and "0.0.0.0" not in everybody


def test_everybody_predicts_one_run_is_watched_and_the_board_compares(room, leader):
    near, far, late = (room.enter(room.code, name) for name in ("Near", "Far", "Late"))
    with pytest.raises(Refusal, match="No lesson is open"):
        room.predict(near, 2.0)
    room.pick(leader, NUMBER)
    room.predict(near, 2.0)
    room.predict(far, 0.5)
    with pytest.raises(Refusal, match="no answer"):
        room.predict(late, 99)
    room.predict(near, 3.0)
    room.predict(near, 2.0)
    assert room.view(near)["guess"] == 2.0, "a guess may be changed until the run starts"
    before = room.view(late)
    assert before["board"] == [] and '"guess": 0.5' not in json.dumps(before), "no guess is shown while others think"
    assert before["people"] == [{"name": n, "ready": n != "Late"} for n in ("Near", "Far", "Late")]
    run = room.start(leader)
    with pytest.raises(Refusal, match="too late"):
        room.predict(late, 2.0)
    for refused in (lambda: room.pick(leader, WORD), lambda: room.start(leader)):
        with pytest.raises(Refusal, match=r"going"):
            refused()
    assert {room.view(seat)["run"] for seat in (near, far, late, leader)} == {run}
    assert {row["name"] for row in room.view(late)["board"]} == {"Near", "Far"} and room.view(late)["told"] is None
    after = ended(room, near)
    assert [row["name"] for row in after["board"]] == ["Near", "Far"], "the nearest first"
    assert [row["own"] for row in after["board"]] == [True, False]
    assert after["told"]["value"] == pytest.approx(2.06, rel=0.1) and after["mark"]["right"] and not after["going"]
    assert ended(room, far)["mark"]["off"] < -0.7 and ended(room, late)["mark"] is None
    room.pick(leader, WORD)
    fresh = room.view(near)
    assert (fresh["guess"], fresh["run"], fresh["told"], fresh["board"]) == (None, None, None, [])


def test_a_skipped_run_is_nobodys_mistake_and_can_be_started_again(room, leader):
    guest = room.enter(room.code)
    room.pick(leader, NUMBER)
    room.predict(guest, 2.0)
    first = room.start(leader)
    wait(room.jobs, first, ("running",))
    room.skip(leader)
    skipped = ended(room, guest)
    assert skipped["told"]["value"] is None and skipped["mark"]["right"] is None
    second = room.start(leader)
    assert second != first and ended(room, guest)["mark"]["right"]
    with pytest.raises(Refusal, match="Nothing runs"):
        wait(room.jobs, second)
        while room.jobs.load()[0]:
            pass
        room.skip(leader)


def test_a_paused_queue_lets_only_the_shared_run_through(room, leader):
    room.pause(leader, True)
    own = room.jobs.submit(simulated(), "somebody")
    room.pick(leader, WORD)
    shared = room.start(leader)
    assert wait(room.jobs, shared) == "finished" and room.jobs.state(own) == "queued" and room.jobs.held(own)
    assert room.view(leader)["queue"]["held"] and room.view(leader)["queue"]["waiting"] == 1
    room.pause(leader, False)
    assert wait(room.jobs, own) == "finished" and not room.view(leader)["queue"]["held"]


def test_nothing_of_anybodys_own_runs_is_in_the_room_and_the_shared_one_is_in_no_history(room, leader):
    guest = room.enter(room.code)
    own = room.jobs.submit(simulated(tokens=200), "somebody")
    wait(room.jobs, own, ("running",))
    assert own not in json.dumps(room.view(guest)) and own not in json.dumps(room.view(leader))
    room.pick(leader, WORD)
    shared = room.start(leader)
    wait(room.jobs, shared)
    assert [row["id"] for row in room.jobs.history("somebody")] == [own]
    assert room.owner not in json.dumps(room.view(guest)) and room.secret not in json.dumps(room.view(leader))


def test_tokens_of_others_are_told_to_nobody(room, leader):
    guests = [room.enter(room.code) for _ in range(3)]
    room.pick(leader, NUMBER)
    for guest in guests:
        room.predict(guest, 1.0)
    room.start(leader)
    for seat in (*guests, leader):
        assert not any(token in json.dumps(room.view(seat)) for token in (*guests, leader))


def test_who_left_is_no_longer_counted_and_a_full_room_frees_their_seats(room, leader):
    gone = room.enter(room.code)
    room.clock.now += AWAY_S + 1
    here = room.enter(room.code)
    assert [one["name"] for one in room.view(here)["people"]] == ["Guest 2"]
    for _ in range(SEATS - len(room.seats)):
        room.enter(room.code)
    room.enter(room.code)
    with pytest.raises(Refusal, match="no seat"):
        room.view(gone)
    with pytest.raises(Refusal, match="The room is full"):
        room.enter(room.code)


def test_a_name_can_be_changed_and_is_only_what_can_be_seen(room):
    guest = room.enter(room.code)
    room.rename(guest, "\u202eBob\x00 " + "x" * 80)
    assert room.view(guest)["name"].startswith("Bob xxx") and len(room.view(guest)["name"]) == 24
    with pytest.raises(Refusal, match="at least one letter"):
        room.rename(guest, " \n ")


def test_many_act_at_once_and_each_guess_counts_once(room, leader):
    room.pick(leader, NUMBER)

    def take_part(number: int) -> str:
        seat = room.enter(room.code)
        room.predict(seat, 0.5 + number / 20)
        return room.view(seat)["name"]

    with ThreadPoolExecutor(8) as many:
        names = list(many.map(take_part, range(60)))
    room.start(leader)
    assert len(set(names)) == 60 and len(room.view(leader)["board"]) == 60
