"""The scheduler of continuous batching, without a model."""

import random

import pytest

from engine.decode.scheduler import Chunk, Scheduler, Work, places


def filled(slots: int, chunk: int, *requests: tuple[int, int]) -> Scheduler:
    scheduler = Scheduler(slots, chunk)
    for place, (prompt, output) in enumerate(requests):
        scheduler.admit(place, prompt, output)
    return scheduler


def test_a_prompt_is_read_in_chunks_and_its_last_one_answers():
    scheduler = filled(2, 16, (40, 3))
    steps = []
    for _ in range(3):
        steps.append(scheduler.work())
        scheduler.done(steps[-1])
    assert [step.chunks for step in steps] == [
        (Chunk(0, 0, 16, False),), (Chunk(0, 16, 16, False),), (Chunk(0, 32, 8, True),),
    ]  # fmt: skip
    assert [step.answering for step in steps] == [(), (), (0,)]
    assert scheduler.work() == Work((0,), ())
    assert (scheduler.seats[0].made, scheduler.cached) == (1, 40)


def test_a_step_reads_prompts_beside_everybodys_next_token_and_not_more_than_its_chunk():
    scheduler = filled(4, 16, (4, 9), (10, 9), (30, 9))
    first = scheduler.work()
    assert first.chunks == (Chunk(0, 0, 4, True), Chunk(1, 0, 10, True), Chunk(2, 0, 2, False))
    scheduler.done(first)
    second = scheduler.work()
    assert second == Work((0, 1), (Chunk(2, 2, 16, False),))
    assert second.answering == (0, 1)


def test_nobody_gets_a_slot_that_is_not_free():
    scheduler = filled(2, 16, (4, 1), (4, 1))
    assert scheduler.free == 0
    with pytest.raises(ValueError, match="no slot"):
        scheduler.admit(2, 4, 1)


def test_the_last_row_moves_into_the_hole_of_one_that_leaves():
    scheduler = filled(3, 64, (4, 9), (4, 9), (4, 9))
    assert scheduler.leave(0) == 2
    assert [seat.place for seat in scheduler.seats] == [2, 1]
    assert scheduler.leave(1) == 1
    assert [seat.place for seat in scheduler.seats] == [2]
    assert scheduler.free == 2


def test_prompts_are_read_in_the_order_of_their_arrival_also_after_a_move():
    scheduler = filled(4, 16, (4, 9), (40, 9), (40, 9))
    scheduler.done(scheduler.work())
    scheduler.leave(0)
    assert [seat.place for seat in scheduler.seats] == [2, 1]
    assert [chunk.row for chunk in scheduler.work().chunks] == [1]


def test_every_request_gets_exactly_its_tokens_whatever_the_mixture():
    """A hundred random requests through three slots: rows stay packed, and prompts are read once, in order."""
    draw = random.Random(5)
    asked = [(draw.randint(1, 50), draw.randint(1, 20)) for _ in range(100)]
    scheduler, read, made, place = Scheduler(3, 16), [0] * 100, [0] * 100, 0
    while place < 100 or scheduler.seats:
        while place < 100 and scheduler.free:
            assert scheduler.admit(place, *asked[place]) == len(scheduler.seats) - 1
            place += 1
        work = scheduler.work()
        assert sum(chunk.count for chunk in work.chunks) <= 16 and (work.chunks or work.decoding)
        for chunk in work.chunks:
            who = scheduler.seats[chunk.row].place
            assert chunk.start == read[who]
            read[who] += chunk.count
        for row in work.answering:
            made[scheduler.seats[row].place] += 1
        scheduler.done(work)
        for row in sorted(work.answering, reverse=True):
            if scheduler.seats[row].made == scheduler.seats[row].output:
                scheduler.leave(row)
    assert list(zip(read, made, strict=True)) == asked


@pytest.mark.parametrize(
    ("slots", "budget", "requests", "rows"),
    [(8, 0, 20, 8), (8, 0, 3, 3), (8, 350, 20, 3), (8, 99, 20, 0), (2, 10_000, 20, 2)],
)
def test_memory_decides_how_many_slots_there_are(slots, budget, requests, rows):
    assert places(slots, budget, 100, requests) == rows
