"""The labs on the page: pictures as pure functions of points, and real runs in a real browser on a small grid."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from components.lab_figures import pictures
from components.labs import Labs, choices
from engine.event import TERMINAL, Point
from engine.measure.machine import machine
from engine.measure.points import Points
from engine.presets import lab_presets
from engine.public import Door
from engine.registry import labs
from tests.page.site import shot

SMALL = {"rows": "64", "depth": "64", "tokens": "4"}

NAMED = ("Best: ", "No best is named: ")
"""A busy machine may leave none to be named."""


def measured(name: str, **knobs) -> dict:
    """A result with made-up times: the later a point stands in the grid, the longer it takes."""
    lab = labs()[name](**knobs)
    points = Points(lab, lab.grid(machine()), machine())
    for index, _ in enumerate(points.wanted):
        points.see(Point(0.0, {"index": index, "seconds": 0.001 * (index + 1), "extra_bytes": 1 << 20}))
    return points.result()


@pytest.mark.parametrize("name", labs())
def test_every_lab_has_a_picture_before_and_after(name):
    lab = labs()[name]()
    empty = Points(lab, lab.grid(machine()), machine()).result()
    for result in (empty, measured(name)):
        figures = json.loads(json.dumps(pictures(result)))
        assert figures and all("<script" not in json.dumps(figure) for figure in figures)
        assert [figure["layout"]["meta"]["title"] for figure in figures]


def test_a_heat_map_has_a_cell_for_each_tile_and_a_frame_round_the_best():
    result = measured("tiled_product", device="cpu")
    (figure,) = pictures(result)
    trace, shapes = figure["data"][0], figure["layout"]["shapes"]
    cells = [value for line in trace["z"] for value in line if value is not None]
    assert len(cells) == sum("rows" in point for point in result["points"])
    (frame,) = [one for one in shapes if one["name"] == "best"]
    x, y = int(frame["x0"] + 0.5), int(frame["y0"] + 0.5)
    assert trace["z"][y][x] == result["best"]["gflops"]
    assert "Predicted: working set" in trace["customdata"][y][x][0]
    if result["machine"]["caches"]:
        assert any(one["name"] == "border" for one in shapes)


def test_a_border_stands_where_the_working_set_outgrows_the_cache():
    result = measured("tiled_product", device="cpu")
    result["machine"]["caches"] = {"L2": 1 << 20}
    (figure,) = pictures(result)
    borders = {(one["x0"], one["y0"]) for one in figure["layout"]["shapes"] if one["name"] == "border"}
    assert borders == {(3.5, row - 0.5) for row in range(4)}  # 256 rows are 0.6 MB, 1,024 rows are 2.3 MB


def test_curves_leave_out_what_could_not_run():
    lab = labs()["attention_context"](longest=512)
    points = Points(lab, lab.grid(machine()), machine())
    for index, point in enumerate(points.wanted):
        gone = point["kernel"] == "efficient"
        points.see(
            Point(0.0, {"index": index, **({"left_out": "No."} if gone else {"seconds": 0.01, "extra_bytes": 9})})
        )
    time, memory = pictures(points.result())
    assert [trace["name"] for trace in time["data"]] == ["eager", "SDPA math", "SDPA flash"]
    empty = pictures(Points(lab, points.wanted, machine()).result())[0]["data"]
    colours = {trace["name"]: trace["meta"]["colour"] for trace in empty}
    assert all(trace["meta"]["colour"] == colours[trace["name"]] for trace in time["data"]) and len(colours) == 4
    assert all(len(trace["x"]) == 3 for trace in (*time["data"], *memory["data"]))


class NoWorkers:
    def lease(self, plan):
        raise OSError(12, "Cannot allocate memory")


def no_folder(path, stop):
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize(("broken", "word"), [("pool", "OSError"), ("gate", "PermissionError")])
def test_a_lab_that_cannot_begin_fails_with_a_sentence_and_can_be_run_again(broken, word, tmp_path, monkeypatch):
    kept, ends, see = [], [], Points.see
    monkeypatch.setattr(Points, "see", lambda self, event: (see(self, event), ends.append(event)))
    if broken == "gate":
        monkeypatch.setattr("engine.run.lab.alone", no_folder)
    store = SimpleNamespace(gate_file=tmp_path / "machine.lock", add_lab=lambda owner, result: kept.append(result))
    board = Labs(SimpleNamespace(pool=NoWorkers(), store=store, door=Door(), warning=""), pictures)
    board.knobs = {name: part.model_fields for name, part in labs().items()}
    knobs = [value for part in labs().values() for value in part().knobs().values()]

    async def press() -> list[tuple]:
        return [shown async for shown in board.start("ann", "0", *knobs)]

    for times in (1, 2):
        with ThreadPoolExecutor(1) as elsewhere:  # in this thread the browser's own loop may be running
            view, run, stop = elsewhere.submit(asyncio.run, press()).result()[-1]
        assert json.loads(view)["error"] and any(word in text for text in json.loads(view)["more"])
        assert (run["interactive"], stop["interactive"]) == (True, False)
        assert [one["status"] for one in kept] == ["failed"] * times
        assert sum(isinstance(event, TERMINAL) for event in ends) == times


@pytest.fixture
def lab_page(visit):
    page = visit("explore")
    page.wait_for_selector(".lab .picture .plot-container")
    for knob, text in SMALL.items():
        page.fill(f"#lab-tiled_product-{knob} input", text)
    page.fill("#lab-tiled_product-repeats input[type=number]", "2")
    page.locator("#lab-tiled_product-repeats input[type=number]").blur()
    page.wait_for_function("document.querySelector('.lab .picture').data[0].z[0].length == 3")
    return page


@pytest.mark.browser
def test_a_lab_runs_and_a_tile_is_moved(lab_page):
    page = lab_page
    page.click("#lab-run")
    page.wait_for_selector(".lab[data-state=done]")
    assert page.inner_text(".lab .title").startswith(NAMED)
    assert page.locator(".lab .reference").count() == 2
    grid = page.evaluate("document.querySelector('.lab .picture').data[0].z")
    assert all(value > 0 for line in grid for value in line)
    assert page.is_enabled("#lab-run") and page.is_disabled("#lab-stop")
    page.locator(".lab input[data-axis=across]").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".lab .told:has-text('GFLOP/s')")
    assert page.inner_text(".lab .title").startswith(NAMED)
    shot(page, "lab")
    page.reload()
    page.wait_for_selector(".lab[data-state=done] .title:has-text('est')")
    assert page.input_value("#lab-tiled_product-repeats input[type=number]") == "2"


def test_a_lab_is_offered_once_by_its_question():
    assert all(one.lab == type(one.lab)() for one in lab_presets().values()), "a question is a lab as it stands"
    offered = [title for title, _ in choices()]
    assert (
        len(offered) == len(labs()) and "Which tile fits this machine's cache? (Tiles of a matrix product)" in offered
    )


@pytest.mark.browser
@pytest.mark.skipif(bool(machine().gpus), reason="There is a GPU here, so what needs one is offered.")
def test_without_a_gpu_what_needs_one_is_not_offered_and_says_why(lab_page):
    page = lab_page
    step, device = page.locator("#lab-tiled_product-step"), page.locator("#lab-tiled_product-device")
    assert step.locator("input:not(:disabled)").count() == 0 and "no NVIDIA GPU" in step.inner_text()
    assert device.locator("input").count() == 2 and "cuda is not offered" in device.inner_text()
    run, knob = (page.locator(one).bounding_box()["y"] for one in ("#lab-run", "#lab-tiled_product-rows"))
    assert run < knob and page.is_visible("#lab-rail .lab-0 details p")
    assert page.locator("#lab-rail .lab-0 .term").count() >= 2, "its words are explained"


@pytest.mark.browser
def test_a_lab_can_be_stopped_and_run_again(lab_page):
    page = lab_page
    page.fill("#lab-tiled_product-rows input", "49152")
    page.fill("#lab-tiled_product-depth input", "576")
    page.fill("#lab-tiled_product-repeats input[type=number]", "30")
    page.locator("#lab-tiled_product-repeats input[type=number]").blur()
    page.wait_for_function("document.querySelector('.lab .picture').data[0].z[0].length == 9")
    page.click("#lab-run")
    page.wait_for_selector(".lab[data-state=runs]")
    page.click("#lab-stop")
    page.wait_for_selector(".lab[data-state=failed] .title:has-text('Stopped')")
    page.wait_for_selector("#lab-run:not([disabled])")


@pytest.mark.browser
def test_a_wrong_knob_is_a_sentence_and_another_lab_has_its_own_knobs(lab_page):
    page = lab_page
    page.fill("#lab-tiled_product-rows input", "3")
    page.click("#lab-run")
    page.wait_for_selector(".lab[data-state=refused] .title:has-text('greater than or equal to 16')")
    page.click("#lab-choice label:has-text('Scaling with threads')")
    page.wait_for_selector(".lab[data-lab=thread_scaling]")
    assert page.is_visible("#lab-thread_scaling-read_mb") and page.is_hidden("#lab-tiled_product-rows")
    assert page.locator(".lab .picture").count() == 2
