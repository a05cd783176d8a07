"""A withdrawn round is out for every lane, the verdict says so, and the runner makes up for it."""

from dataclasses import replace

import pytest

from components.summary import summary
from engine.console import table
from engine.event import Conditions, Finished, Memory, Record, Request, Step
from engine.measure.machine import machine
from engine.measure.result import result
from engine.run import runner
from engine.run.pool import Pool
from engine.run.runner import Run
from engine.spec import Experiment

CROWDED = {"cores": 2, "own": 1.0, "others": 1.0, "idle": 0.0, "waited": 0.8}
QUIET = {"cores": 2, "own": 3.8, "others": 0.1, "idle": 0.1, "waited": 0.02}


def experiment(rounds: int, lanes: str = "AB", **workload) -> Experiment:
    work = {"prompts": "x", "max_new_tokens": 3, **workload}
    return Experiment.read({"rounds": rounds, "workload": work, "lanes": {name: {} for name in lanes}})


def records(rounds: int, spoiled: dict[int, set[int]]) -> list[Record]:
    """Lane A needs 0.2 s a token, B 0.1 s, but ten times that in rounds that are spoiled for it."""
    found = []
    for number in range(rounds):
        for lane, gap in enumerate((0.2, 0.1)):
            bad = number in spoiled.get(lane, set())
            steps = [Step(gap * (10 if bad else 1) * (place + 1), (0,), ((place,),)) for place in range(3)]
            seen = Conditions(9.0, 2.0, **(CROWDED if bad else QUIET))
            events = (Request(0.0, 0, 2), *steps, seen, Finished(9.0))
            found += [Record(lane, number, event) for event in events]
    return found


def test_a_withdrawn_round_and_its_pair_are_left_out_of_medians_and_verdicts():
    found = result(experiment(8), machine().to_dict(), records(8, {1: {2, 5}}))
    first, second = found["lanes"]
    verdict = found["verdicts"][0]
    assert (verdict["pairs"], verdict["withdrawn"], verdict["word"]) == (6, 2, "faster")
    assert second["conditions"] == {"others_cores": 0.05, "waited_cores": 0.01, "steady": None}
    assert verdict["ratio"] == pytest.approx(2) and second["metrics"]["tpot_ms"] == pytest.approx(100)
    assert "2 of 8 rounds were withdrawn and left out: other programs used 0.5 of 2 cores." in verdict["sentence"]
    assert second["rounds"][2]["withdrawn"] == "Withdrawn: other programs used 0.5 of 2 cores."
    assert first["rounds"][2]["withdrawn"] == "Withdrawn, because the same round of another lane was."
    assert first["rounds"][1]["withdrawn"] is None and len(second["rounds"]) == 8


def test_lanes_that_ran_one_after_the_other_are_told_without_a_verdict():
    alternating = records(8, {})
    apart = sorted(alternating, key=lambda record: record.lane)
    sure, doubtful = (
        {one["metric"]: one for one in result(experiment(8), machine().to_dict(), said)["verdicts"]}
        for said in (alternating, apart)
    )
    speed = doubtful["output_tok_per_s"]
    assert sure["output_tok_per_s"]["word"] == "faster" and speed["word"] == "cannot tell"
    assert speed["ratio"] == pytest.approx(2)
    assert speed["sentence"].startswith("Run one after the other, lane B went at 2.00× the speed of lane A (8 pairs).")
    one = [record for record in apart if record.round == 0]
    quick = result(experiment(1), machine().to_dict(), one)["verdicts"][0]
    assert quick["sentence"].startswith("A quick look"), "of one round each, one must come first"


def test_a_round_with_nothing_within_its_limits_is_not_left_out_of_the_goodput():
    """Lane A's every second round is too slow for any request: that is no reason to compare the others alone."""
    asked = experiment(8, requests=2, tpot_limit_ms=500.0)
    seen = [record for number in range(8) for record in _two(number, spoiled=number % 2 == 1)]
    found = {one["metric"]: one for one in result(asked, machine().to_dict(), seen)["verdicts"]}
    goodput = found["goodput_per_s"]
    assert (goodput["word"], goodput["ratio"], goodput["pairs"]) == ("cannot tell", None, 8)
    assert goodput["sentence"].startswith("Lane A had 0 in 4 of 8 rounds, and to nothing there is no ratio (medians")


def _two(number: int, spoiled: bool) -> list[Record]:
    """Both lanes' round with two requests of two tokens; if it is spoiled, lane A takes a second a token."""
    said = []
    for lane in (0, 1):
        gap = 1.0 if spoiled and not lane else 0.1
        steps = [Step(gap * (place + 1), (0, 1), ((place,), (place,))) for place in range(2)]
        events = (Request(0.0, 0, 2), Request(0.0, 1, 2), *steps, Finished(9.0))
        said += [Record(lane, number, event) for event in events]
    return said


def test_with_fewer_than_six_pairs_left_there_is_no_winner():
    verdict = result(experiment(8), machine().to_dict(), records(8, {0: {0}, 1: {1, 2}}))["verdicts"][0]
    assert (verdict["pairs"], verdict["word"]) == (5, "cannot tell")
    assert verdict["sentence"].startswith("A quick look") and "3 of 8 rounds were withdrawn" in verdict["sentence"]


def test_with_nothing_left_the_figures_stay_and_nothing_is_compared(monkeypatch):
    monkeypatch.setitem(CROWDED, "others", 2.0)
    found = result(experiment(6), machine().to_dict(), records(6, {1: set(range(6))}))
    verdict = found["verdicts"][0]
    assert (verdict["pairs"], verdict["ratio"], verdict["word"]) == (0, None, "cannot tell")
    assert verdict["sentence"].startswith("Every round was withdrawn, so nothing is compared")
    assert found["lanes"][0]["metrics"]["tpot_ms"] == pytest.approx(200)
    shown = {row["key"]: row["cells"][1] for row in summary(found, "done")["rows"]}
    assert shown["tpot_ms"]["value"] and shown["tpot_ms"]["ratio"] is None and "×)" not in table(found)


def test_with_nothing_left_what_does_not_depend_on_time_is_still_told(monkeypatch):
    monkeypatch.setitem(CROWDED, "others", 2.0)
    seen = [_guessed(one) if one.lane and _late(one) else one for one in records(6, {1: set(range(6))})]
    held = [Record(lane, 0, Memory(0.0, peak=size)) for lane, size in ((0, 3 * 10**8), (1, 4 * 10**8))]
    found = result(experiment(6), machine().to_dict(), [*held, *seen])
    (card,) = found["lanes"][1]["findings"]
    assert card["rule"] == "timeless" and "took" not in card["sentence"]
    assert "a step of lane B wrote 2 tokens (50% of its guesses were right)" in card["sentence"]
    assert "lane B held 400 MB of memory at most, lane A 300 MB" in card["sentence"]
    assert not any(verdict["pairs"] for verdict in found["verdicts"]), "the other lane guessed nothing"
    priced = [{**lane, "cost": {"per_million_tokens": 2.0}} for lane in found["lanes"]]
    shown = {row["key"]: row["cells"][1]["ratio"] for row in summary({**found, "lanes": priced}, "done")["rows"]}
    assert shown["per_million_tokens"] is None and shown["peak_bytes"] == pytest.approx(4 / 3)
    calm = result(experiment(6), machine().to_dict(), records(6, {1: {0}}))
    assert all(card["rule"] != "timeless" for card in calm["lanes"][1]["findings"])


def _guessed(record: Record) -> Record:
    return replace(record, event=replace(record.event, tokens=((1, 2),), drafted=2, accepted=1))


def _late(record: Record) -> bool:
    return isinstance(record.event, Step) and record.event.tokens != ((0,),)


def test_a_light_load_on_most_rounds_is_told_and_spoils_nothing(monkeypatch):
    """The browser that draws the page, on two cores: figures stand without a verdict; a heavier load leaves none."""
    monkeypatch.setitem(CROWDED, "others", 1.4)
    most = records(8, {0: set(range(8)), 1: set(range(7))})
    verdict = result(experiment(8), machine().to_dict(), most)["verdicts"][0]
    assert (verdict["pairs"], verdict["withdrawn"], verdict["word"]) == (8, 0, "cannot tell")
    assert verdict["sentence"].startswith("Under load lane B went at")
    assert "used 35% of the processor all the while: on a quiet machine it may be otherwise." in verdict["sentence"]
    halves = result(experiment(8), machine().to_dict(), records(8, {0: {0, 2, 4}, 1: {1, 3, 5, 7}}))["verdicts"][0]
    assert (halves["pairs"], halves["withdrawn"], halves["word"]) == (8, 0, "cannot tell")
    monkeypatch.setitem(CROWDED, "others", 2.0)
    heavy = result(experiment(8), machine().to_dict(), records(8, {0: set(range(8)), 1: set(range(8))}))
    assert heavy["verdicts"][0]["pairs"] == 0


def test_the_gpu_clock_is_compared_over_the_rounds_of_a_lane():
    seen = records(6, {})
    slow = [
        Record(r.lane, r.round, Conditions(9.0, 2.0, clock=1000.0 if r.round == 3 else 1900.0))
        if isinstance(r.event, Conditions)
        else r
        for r in seen
    ]
    rounds = result(experiment(6), machine().to_dict(), slow)["lanes"][0]["rounds"]
    assert [number for number, one in enumerate(rounds) if one["withdrawn"]] == [3]


@pytest.fixture(scope="module")
def pool():
    pool = Pool()
    yield pool
    pool.close()


@pytest.mark.parametrize(
    ("bad", "crowd", "taken"),
    [(set(), False, 4), ({1}, False, 5), ({0, 1, 2, 3}, False, 6), (set(range(6)), False, 6),
     ({1}, True, 5), (set(range(6)), True, 4)],
)  # fmt: skip
def test_the_runner_makes_up_for_withdrawn_rounds_up_to_half_as_many(tiny_model, pool, monkeypatch, bad, crowd, taken):
    """Which rounds are bad is decided here, since a real disturbance cannot be ordered. A load stays: no use."""
    seen = iter(range(100))

    def decided(event: Conditions, fastest: float | None = None, steady: bool = False) -> str | None:
        if steady:
            return None if crowd else "noise"
        return "noise" if next(seen) in bad else None

    monkeypatch.setattr(runner, "withdrawn", decided)
    data = {**experiment(4, "A", chat=False).to_dict(), "model": str(tiny_model)}
    ran = list(Run(Experiment.read(data), pool).records())
    assert [record.event.seconds > 0 for record in ran if isinstance(record.event, Conditions)] == [True] * taken
    assert {record.round for record in ran} - {None} == set(range(taken))


@pytest.mark.parametrize(("bytes_", "order"), [(1e6, "ABBA"), (1e15, "AABB")])
def test_lanes_that_do_not_fit_together_run_one_after_the_other(tiny_model, pool, monkeypatch, bytes_, order):
    monkeypatch.setattr(runner, "needed", lambda plan, workload: bytes_)
    monkeypatch.setattr(runner, "withdrawn", lambda *_, **__: None)
    monkeypatch.setattr(runner.random, "sample", lambda lanes, count: list(lanes))
    data = {**experiment(2, "AB", chat=False).to_dict(), "model": str(tiny_model), "quality": False}
    ran = [record for record in Run(Experiment.read(data), pool).records() if isinstance(record.event, Finished)]
    assert "".join("AB"[record.lane] for record in ran if record.round is not None) == order
