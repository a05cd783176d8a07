"""The picture of launches: the same name has the same rank in every lane, and nothing is lost."""

from components.launches import NAMED, picture


def record(total: int, calls: int | None = None, unit: str = "operators", **counts: int) -> dict:
    top = [{"name": name, "count": count, "share": 0.1} for name, count in counts.items()]
    return {"unit": unit, "total": total, "calls": calls or total, "top": top}


def test_a_bar_adds_up_to_all_launches_of_the_step():
    drawn = picture(["A", "B"], [record(100, mul=40, linear=30), record(60, linear=12, fused=8)])
    assert drawn["most"] == 100
    for lane, total in zip(drawn["lanes"], (100, 60), strict=True):
        assert sum(part["count"] for part in lane["segments"]) == lane["total"] == total
    first, second = ({part["name"]: part["rank"] for part in lane["segments"]} for lane in drawn["lanes"])
    assert first["linear"] == second["linear"] == 1
    assert first["all others"] is None


def test_only_the_most_frequent_names_get_a_segment():
    drawn = picture(["A"], [record(200, **{f"name{number}": number + 1 for number in range(12)})])
    segments = drawn["lanes"][0]["segments"]
    assert len(segments) == NAMED + 1
    assert [part["count"] for part in segments[:2]] == [12, 11]


def test_the_sentence_compares_with_the_first_lane():
    said = picture(["plain", "fused"], [record(592, mul=9), record(412, mul=9)])["sentence"]
    assert said == "One step of lane plain launches 592 operators, lane fused fewer: 412 operators."
    replayed = record(1370, 1, "kernels", mul=9)
    said = picture(["A", "B"], [record(1370, unit="kernels", mul=9), replayed])["sentence"]
    assert said == "One step of lane A launches 1,370 kernels, lane B as many by 1 call of the host."


def test_a_step_that_is_one_call_is_one_operator():
    drawn = picture(["plain", "one call"], [record(592, mul=9), record(1, **{"whole step": 1})])
    assert drawn["sentence"] == "One step of lane plain launches 592 operators, lane one call fewer: 1 operator."
    assert drawn["lanes"][1]["unit"] == "operator"


def test_lanes_without_a_count_are_left_out():
    assert picture(["A", "B"], [None, None]) is None
    drawn = picture(["A", "B"], [None, record(5, mul=5)])
    assert drawn["lanes"][0] is None and drawn["sentence"] == "One step of lane B launches 5 operators."
