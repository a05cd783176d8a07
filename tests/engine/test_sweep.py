"""A sweep's grid: what is read from the command line, in which order it is measured, and how drift is told."""

import pytest

from engine.refusal import Refusal
from engine.run.marks import REPEAT, best, drifted, marks
from engine.run.study import Entry, Outcome, outcome, raced
from engine.run.sweep import MOST, Axis, Sweep
from engine.spec import Experiment

SPEED = "output_tok_per_s"


def experiment(*lanes: str, **backend) -> Experiment:
    lane = {"backend": {"name": "simulated", "ttft_ms": 5, "tpot_ms": 2, **backend}} if backend else {}
    return Experiment.read({"workload": {"prompts": ["go"]}, "lanes": dict.fromkeys(lanes or "A", lane)})


def folded(sweep: Sweep, speeds) -> dict[int, Entry]:
    """The sweep's points with made-up speeds; None is a point that failed."""
    found = [
        Outcome("failed", "Broken.") if s is None else Outcome("done", "", "run", {"A": {SPEED: s}}) for s in speeds
    ]
    return {n: Entry(n, point, one) for n, (point, one) in enumerate(zip(sweep.points, found, strict=False))}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("workload.max_new_tokens=1,2,4", (1, 2, 4)),
        ("workload.max_new_tokens= 3..6 ", (3, 4, 5, 6)),
        ("lane.opts.precision.dtype=auto, bfloat16", ("auto", "bfloat16")),
        ('lane.opts.torchao=false,{"kind":"int8-weight-only"}', (False, {"kind": "int8-weight-only"})),
        ("workload.temperature=0.5,1", (0.5, 1)),
    ],
)
def test_an_axis_is_read_from_text(text, values):
    assert Axis.read(text).values == values


@pytest.mark.parametrize(
    ("over", "text"),
    [
        ([], "Nothing is varied"),
        (["workload.max_new_tokens"], "no list of values"),
        (["workload.max_new_tokens=9..1"], "no range"),
        (["workload.max_new_tokens=1,1"], "a value twice"),
        (["workload.max_new_tokens=1,2", "workload.max_new_tokens=3"], "varied twice"),
        (["workload.tokens=1,2"], "there is no such key; there are prompts"),
        (["lane.opts.prompt_lookup.guess=1,2"], "has no knob 'guess'; it has guesses"),
        (["lane.opts.no_such.kind=1,2"], "there is no optimization 'no_such'; there are precision"),
        (["lanes.Z.opts.prompt_lookup.guesses=1"], "there is no lane Z; there are A"),
        (["lane.opts.prompt_lookup.guesses=1,99"], "less than or equal to 16"),
        (["workload.max_new_tokens=1..20", "workload.seed=1..20"], f"400 points, and {MOST} are the most"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_starts(over, text):
    with pytest.raises(Refusal, match=text):
        Sweep(experiment(), [Axis.read(one) for one in over])


def test_points_that_load_the_same_stand_together_and_the_first_comes_again():
    axes = [Axis.read("lane.opts.prompt_lookup.guesses=1..6"), Axis.read("lane.opts.precision.dtype=float32,bfloat16")]
    sweep = Sweep(experiment(), axes)
    formats = [point.values["lane.opts.precision.dtype"] for point in sweep.points if not point.role]
    assert formats == ["float32"] * 6 + ["bfloat16"] * 6
    repeats = [number for number, point in enumerate(sweep.points) if point.role == REPEAT]
    assert repeats == [8, 13] and sweep.points[8].experiment == sweep.points[0].experiment
    assert Sweep.from_dict(sweep.to_dict()).points == sweep.points


def test_a_sweep_of_what_cannot_run_here_is_refused():
    axes = [Axis.read("lane.opts.torchao.kind=int4-weight-only,fp8-dynamic")]
    sweep = Sweep(experiment(), axes)
    assert sweep.following({})[0] == 0  # on a cluster it might run
    with pytest.raises(Refusal, match="None of the points can run here"):
        sweep.possible_here()


def test_what_is_known_is_known_by_its_setup():
    """A version that orders points otherwise measures none of them again."""
    sweep = Sweep(experiment(ttft_ms=5), [Axis.read("lane.backend.tpot_ms=1,2,3,4")])
    known = {n: Entry(n, point, Outcome("done")) for n, point in enumerate([sweep.points[2], sweep.points[0]])}
    left = []
    while found := sweep.following(known):
        left.append(found[1])
        known[found[0]] = Entry(*found, Outcome("done"))
    assert left == [sweep.points[1], sweep.points[3], sweep.points[4]] and sorted(known) == [0, 1, 2, 3, 4]


def test_drift_is_how_far_the_repeats_lie_apart():
    sweep = Sweep(experiment(ttft_ms=5), [Axis.read("lane.backend.tpot_ms=1,2,3")])
    known = folded(sweep, [100.0, 50.0, 40.0, 104.0])
    assert drifted(known, SPEED) == pytest.approx(0.04)
    found = sweep.summary(known)["sentence"]
    assert "Fastest of 3: tpot ms 1, 102.0 tok/s." in found and "differed by 4.0%" in found
    assert drifted(folded(sweep, [100.0, 50.0]), SPEED) is None


def test_of_points_that_were_all_disturbed_none_is_called_the_fastest():
    sweep = Sweep(experiment(ttft_ms=5), [Axis.read("lane.backend.tpot_ms=1,2")])
    lost = {"why": "Withdrawn: other programs used 1.7 of 2 cores.", "spoiled": True}
    known = {
        n: Entry(n, p, Outcome("done", lanes={"A": {SPEED: 10.0 + n}}, **lost)) for n, p in enumerate(sweep.points)
    }
    said = sweep.summary(known)["sentence"]
    assert said.startswith("Every point was disturbed") and lost["why"] in said and "Fastest" not in said


def test_a_failed_point_stays_a_point_with_its_sentence():
    sweep = Sweep(experiment(ttft_ms=5), [Axis.read("lane.backend.tpot_ms=1,2,3")])
    rows = marks(folded(sweep, [100.0, None, 40.0, 104.0]))
    assert [row["state"] for row in rows] == ["done", "failed", "done"] and rows[1]["why"] == "Broken."
    assert [row["front"] for row in rows] == [True, False, False] and best(rows, SPEED)["number"] == 0
    assert "1 could not be measured" in sweep.summary(folded(sweep, [100.0, None]))["sentence"]
    assert "No point could be measured: Broken." in sweep.summary(folded(sweep, [None, None]))["sentence"]
    assert sweep.summary({})["sentence"] == "No point has been measured."


def test_of_two_lanes_each_point_has_two_marks():
    sweep = Sweep(experiment("A", "B", ttft_ms=5), [Axis.read("lanes.B.backend.tpot_ms=1,2")])
    found = Outcome("done", "", "run", {"A": {SPEED: 1.0}, "B": {SPEED: 2.0}})
    rows = marks({0: Entry(0, sweep.points[0], found)})
    assert [(row["lane"], row["label"]) for row in rows] == [("A", "A: tpot ms 1"), ("B", "B: tpot ms 1")]


def test_a_divergence_that_nobody_measured_is_called_stated():
    lane = Experiment.read({"workload": {"prompts": ["go"]}, "lanes": {"A": {"opts": {"torchao": {}}}}})
    common = {"rounds": [{"withdrawn": None}], "metrics": {SPEED: 3.0}, "memory": {}, "status": "finished",
              "why": None, "effective": {}, "conditions": {"steady": None}}  # fmt: skip
    data = {"name": "A", "lane": lane.to_dict()["lanes"]["A"], "hint": None, **common}
    found = outcome({"lanes": [data]}, "run")
    assert found.stated == ["A"] and found.value("kl") == 0.01
    measured = outcome({"lanes": [{**data, "quality": {"text": {"kl_mean": 0.003}}}]}, "run")
    assert measured.stated == [] and measured.value("kl") == 0.003


def test_a_lane_that_ran_something_else_than_its_label_is_a_failed_point():
    effective = {"unmet": ["Asked for quantization nf4, but nothing ran."]}
    data = {"name": "A", "rounds": [{}], "metrics": {SPEED: 3.0}, "memory": {}, "why": None, "effective": effective}
    found = outcome({"lanes": [{**data, "lane": experiment().to_dict()["lanes"]["A"], "status": "finished"}]}, "run")
    assert (found.state, found.why, found.lanes) == ("failed", "Asked for quantization nf4, but nothing ran.", {})


@pytest.mark.parametrize(("rounds", "steady"), [(["Withdrawn: noise."], None), ([None], "Others were busy.")])
def test_a_point_whose_only_round_does_not_count_says_why(rounds, steady):
    data = {"name": "A", "lane": experiment().to_dict()["lanes"]["A"], "hint": None, "metrics": {SPEED: 3.0},
            "memory": {}, "status": "finished", "why": None, "effective": {}, "conditions": {"steady": steady},
            "rounds": [{"withdrawn": one} for one in rounds]}  # fmt: skip
    found = outcome({"lanes": [data]}, "run")
    assert found.spoiled and found.why == (steady or rounds[0]) and found.value(SPEED) == 3.0


def test_two_points_become_the_lanes_of_a_race_if_their_work_is_the_same():
    points = Sweep(experiment(), [Axis("lane.opts.prompt_lookup.guesses", (2, 8))]).points
    made = raced([point for point in points if point.role != REPEAT][:2])
    assert [lane.opts["prompt_lookup"].guesses for lane in made.lanes.values()] == [2, 8]
    assert made.workload == points[0].experiment.workload and made.rounds == 8
    other = Sweep(experiment(), [Axis("workload.max_new_tokens", (4, 8))]).points
    with pytest.raises(Refusal, match="differ in their model or workload"):
        raced(other[:2])
