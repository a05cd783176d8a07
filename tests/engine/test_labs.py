"""Labs: every one keeps the contract, measures in turns, says what its figures say, and runs for real when small."""

import json
import os
import signal
import threading
from dataclasses import replace

import pytest

from engine.event import Failed, Finished, Point, from_dict, to_dict
from engine.labs import Bench, LeftOut
from engine.measure.machine import Gpu, caches, machine
from engine.refusal import Refusal
from engine.registry import labs
from engine.run import grid
from engine.run.gate import alone
from engine.run.lab import LabRun
from engine.run.pool import Pool
from tests.engine.processes import python

SMALL = {
    "tiled_product": {"rows": 40, "depth": 50, "tokens": 5, "repeats": 2},
    "tiled_attention": {"context": 50, "heads": 2, "sharing": 2, "width": 32, "repeats": 2},
    "attention_context": {"longest": 512, "heads": 2, "width": 32, "repeats": 2},
    "thread_scaling": {"read_mb": 64, "rows": 256, "depth": 64, "repeats": 2},
}
HERE = machine()
BARE = replace(HERE, compiler=None, gpus=())
CUDA = replace(HERE, gpus=(Gpu("H100", 80 * 2**30, "9.0", "570"),))


@pytest.fixture
def pool():
    pool = Pool()
    yield pool
    pool.close()


@pytest.mark.parametrize("name", labs())
def test_a_lab_explains_itself(name):
    part = labs()[name]
    words = part.lesson().split()
    assert part.title and part.group and part.picture in ("heat map", "curves") and part.shown
    assert 20 <= len(words) <= 120 and "Source:" in part.lesson()
    for field in part.model_fields.values():
        assert field.title and field.description and field.description.endswith(".")
    assert "repeats" in part.model_fields and set(SMALL) == set(labs())


@pytest.mark.parametrize("where", [HERE, CUDA], ids=["here", "cuda"])
@pytest.mark.parametrize("name", labs())
def test_a_grid_is_plain_data_with_a_place_for_each_point(name, where):
    lab = labs()[name]()
    points = lab.grid(where)
    assert json.loads(json.dumps(points)) == points and len({json.dumps(point) for point in points}) == len(points)
    json.dumps(lab.describe(where))
    for point in points:
        assert lab.predict(point, where).get("bytes", 1) > 0
    assert lab.configured(lab.knobs()) == lab


@pytest.mark.parametrize("name", ["tiled_product", "tiled_attention", "attention_context"])
def test_what_cannot_run_is_a_sentence(name):
    part = labs()[name]
    assert "GPU" in part(device="cuda").settle(HERE if not HERE.gpus else BARE)
    assert part(device="cuda").settle(replace(CUDA, zero_gpu=True))
    assert part(device="cuda").settle(CUDA) is None
    if name.startswith("tiled"):
        assert "compiler" in part.unavailable(BARE) and "compiler" in part().settle(BARE)
        assert part(device="cpu").settle(replace(CUDA, compiler=None))
        assert part().settle(replace(CUDA, compiler=None)) is None
    else:
        assert "compiler" in part(flex=True).settle(BARE) and part().settle(BARE) is None


@pytest.mark.parametrize(
    ("name", "knobs", "says"),
    [
        ("tiled_product", {"rows": 3}, "tiled_product.rows is 3: should be greater than or equal to 16."),
        ("tiled_product", {"wheels": 4}, "no knob wheels; it has rows"),
        ("tiled_product", {"step": 33}, "should be 32, 64 or 128"),
        ("tiled_product", {"rows": True}, "valid integer"),
    ],
)
def test_a_wrong_knob_is_a_sentence(name, knobs, says):
    with pytest.raises(Refusal, match=says):
        labs()[name].configured(knobs)


def test_sizes_that_do_not_fit_are_refused_before_they_are_made():
    assert "memory" in labs()["tiled_product"](rows=262144, depth=16384, device="cpu").settle(
        replace(HERE, memory_bytes=2**32)
    )
    assert "shorter" in labs()["tiled_attention"](context=16384, device="cpu").settle(replace(HERE, memory_bytes=2**32))
    assert "divides" in labs()["tiled_attention"](heads=4, sharing=3).settle(HERE)


def test_a_point_of_ones_own():
    lab = labs()["tiled_product"](rows=100, device="cpu")
    assert lab.point(7.0, 4, HERE) == {"kind": "tile", "rows": 7, "tokens": 4}
    for across, along in ((101, 4), (0, 4), (7, 3)):
        with pytest.raises(Refusal, match="no tile"):
            lab.point(across, along, HERE)
    with pytest.raises(Refusal, match="On a GPU"):
        labs()["tiled_product"](rows=100).point(48, 16, CUDA)
    with pytest.raises(Refusal, match="its own points"):
        labs()["thread_scaling"]().point(1, 1, HERE)


def test_caches_are_read_from_the_system(tmp_path):
    for index, (level, kind, amount) in enumerate(
        [(1, "Data", "48K"), (1, "Instruction", "32K"), (3, "Unified", "32M")]
    ):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", amount)):
            (folder / name).write_text(f"{text}\n")
    (tmp_path / "index9").mkdir()
    assert caches(tmp_path) == {"L1d": 48 << 10, "L3": 32 << 20}
    assert caches(tmp_path / "nothing") == {}


def test_a_point_is_an_event():
    event = Point(1.5, {"index": 0, "seconds": 0.25, "left_out": ""})
    assert from_dict(json.loads(json.dumps(to_dict(event)))) == event


class Toy(Bench):
    """Points that count their calls; one cannot run, one may be wrong."""

    def __init__(self, wrong: bool = False):
        self.order: list[str] = []
        self.wrong = wrong

    def call(self, point):
        if point["name"] == "absent":
            raise LeftOut("It is not there.")
        return lambda: self.order.append(point["name"]) if point["name"] != "large" else self._fail()

    def _fail(self):
        raise MemoryError

    def check(self, point, output):
        if self.wrong:
            raise ArithmeticError("wrong")
        return {"error": 0.0}


TOYS = [{"name": name} for name in ("a", "absent", "b", "large", "c")]


def test_points_take_turns_and_one_that_cannot_run_stops_nobody():
    bench, events = Toy(), []
    grid.measure(bench, TOYS, 4, events.append)
    points = [event.values for event in events if isinstance(event, Point)]
    assert [point["index"] for point in points[:5]] == [0, 1, 2, 3, 4]
    assert points[1]["left_out"] == "It is not there." and "memory" in points[3]["left_out"]
    later = [point["index"] for point in points[5:]]
    assert [sorted(later[start : start + 3]) for start in (0, 3, 6)] == [[0, 2, 4]] * 3
    assert all(point["seconds"] > 0 for point in points[5:])


def test_a_wrong_result_is_no_point():
    with pytest.raises(ArithmeticError):
        grid.measure(Toy(wrong=True), TOYS, 1, lambda event: None)


@pytest.mark.parametrize("name", labs())
def test_a_small_lab_runs_in_a_worker(name, pool, tmp_path):
    lab = labs()[name].configured(SMALL[name])
    run = LabRun(lab, pool, tmp_path / "gate")
    events = list(run.events())
    result = json.loads(json.dumps(run.result()))
    assert isinstance(events[-1], Finished), events[-1]
    assert result["status"] == "finished" and result["sentence"] and result["rounds"] == 2
    ran = [point for point in result["points"] if "left_out" not in point]
    assert ran and all(point["repeats"] == 2 for point in ran)
    most = 1e-2 if HERE.gpus else 1e-3  # a GPU's tiles are of 16 bits
    assert all(point["error"] < most for point in ran if "error" in point), ran
    assert pool.idle, "the worker is kept warm"


def test_a_point_of_ones_own_is_measured_alone(pool, tmp_path):
    lab = labs()["tiled_product"].configured({**SMALL["tiled_product"], "device": "cpu"})
    run = LabRun(lab, pool, tmp_path / "gate", [lab.point(3, 2, HERE)])
    assert isinstance(list(run.events())[-1], Finished)
    (entry,) = run.points.entries()
    assert entry["rows"] == 3 and entry["gflops"] > 0 and entry["repeats"] == 2


def test_stop_ends_a_lab_between_two_points(pool, tmp_path):
    lab = labs()["tiled_product"].configured({**SMALL["tiled_product"], "repeats": 30})
    run = LabRun(lab, pool, tmp_path / "gate")
    seen = []
    for event in run.events():
        seen.append(event)
        if isinstance(event, Point):
            run.cancel()
    assert isinstance(seen[-1], Failed) and seen[-1].status == "cancelled"
    assert len(seen) < 30 * len(run.wanted) and run.result()["status"] == "cancelled"


def test_a_lab_waits_until_nobody_else_measures(pool, tmp_path):
    run = LabRun(labs()["tiled_product"].configured(SMALL["tiled_product"]), pool, tmp_path / "gate")
    events = run.events()
    seen: list = []
    with alone(tmp_path / "gate", lambda: False):
        assert next(events).name == "wait"
        waiting = threading.Thread(target=lambda: seen.extend(events))
        waiting.start()
        waiting.join(0.6)
        assert waiting.is_alive() and seen == [] and not pool.leased
    waiting.join(60)
    assert isinstance(seen[-1], Finished)


def test_a_worker_that_dies_is_a_sentence_without_lanes(pool, tmp_path):
    run = LabRun(labs()["tiled_product"].configured({**SMALL["tiled_product"], "repeats": 30}), pool, tmp_path / "gate")
    events = []
    for event in run.events():
        events.append(event)
        if isinstance(event, Point) and pool.leased:
            os.kill(next(iter(pool.leased)).process.pid, signal.SIGKILL)
    end = events[-1]
    assert isinstance(end, Failed) and "SIGKILL" in end.why and "lane" not in end.hint and not pool.idle


def test_a_refused_lab_starts_no_worker(pool, tmp_path):
    run = LabRun(labs()["tiled_attention"](heads=4, sharing=3), pool, tmp_path / "gate")
    (end,) = run.events()
    assert end.status == "refused" and not pool.idle


def test_the_command_line_measures_prints_and_remembers(tmp_path):
    settings = {"PITLANE_HOME": str(tmp_path)}
    knobs = [f"--set={knob}={value}" for knob, value in SMALL["tiled_product"].items()]
    done = python("-m", "engine", "lab", "tiled_product", *knobs, "--json", str(tmp_path / "x.json"), **settings)
    assert done.returncode == 0, done.stderr
    assert "Rows of W in a tile" in done.stdout and "library:" in done.stdout
    kept = json.loads((tmp_path / "x.json").read_text())
    assert kept["best"] is None or kept["best"]["kind"] == "tile"
    assert kept["sentence"].endswith(".") and kept["sentence"] in done.stdout, "the best, or why none is named"
    rows = json.loads(python("-m", "engine", "labs", "--history", "--json", **settings).stdout)
    assert [row["lab"] for row in rows] == ["tiled_product"] and rows[0]["sentence"] == kept["sentence"]
    listed = json.loads(python("-m", "engine", "labs", "--json").stdout)
    assert [row["name"] for row in listed] == list(labs()) and all(row["lesson"] for row in listed)
    for wrong in (["nothing"], ["tiled_product", "--set=rows=1"], ["tiled_product", "--set=rows"]):
        refused = python("-m", "engine", "lab", *wrong, **settings)
        assert refused.returncode == 2 and "Traceback" not in refused.stderr and refused.stderr.strip()
