"""Explore on the page: pictures as pure functions of points, and real studies in a real browser."""

import json

import pytest

from components.heatmap import heatmap
from components.pareto import picture
from components.waterfall import waterfall
from engine.measure.ablation import configurations, effects
from tests.page.site import shot

SPEED = "output_tok_per_s"


def mark(number: int, speed: float | None, peak: float | None, kl: float = 0.0, label: str = "") -> dict:
    figures = {SPEED: speed, "peak": peak, "kl": kl, "ttft_ms": 10.0 * number}
    return {
        "number": number,
        "label": label or f"point {number}",
        "state": "done",
        "why": "",
        "figures": figures,
        "stated": False,
    }


def test_dominated_points_are_apart_from_the_front_and_unknown_ones_are_not_drawn():
    marks = [mark(0, 10, 5e6), mark(1, 20, 9e6, 0.003), mark(2, 15, 9e6), mark(3, None, 1e6), mark(4, 5, None)]
    figure = json.loads(json.dumps(picture(marks, "peak", SPEED, "ttft_ms")))
    beaten, front = figure["data"]
    assert (front["x"], front["y"]) == ([5, 9], [10, 20]) and (beaten["x"], beaten["y"]) == ([9], [15])
    assert front["text"] == ["", "KL 0.003"] and [row[0] for row in front["customdata"]] == [0, 1]
    sizes = front["marker"]["size"] + beaten["marker"]["size"]
    assert sizes[0] < sizes[1] < sizes[2]
    assert (
        "MB" in figure["layout"]["xaxis"]["title"]["text"]
        and "more is better" in figure["layout"]["yaxis"]["title"]["text"]
    )
    assert json.dumps(picture([], "peak", SPEED))


def test_over_what_was_varied_there_is_a_line_for_each_of_the_others():
    marks = [
        {**mark(n, 10 + n, 1e6), "lane": "A", "values": {"workload.max_new_tokens": tokens, "lane.opts.x.kind": kind}}
        for n, (tokens, kind) in enumerate([(64, "on"), (16, "on"), (16, "off"), (64, "off")])
    ]
    figure = picture(marks, "workload.max_new_tokens", SPEED)
    assert [(line["name"], list(line["x"]), list(line["y"])) for line in figure["data"]] == [
        ("on", [16, 64], [11, 10]),
        ("off", [16, 64], [12, 13]),
    ]
    assert figure["layout"]["xaxis"]["title"]["text"] == "max new tokens"
    assert picture(marks, "lane.opts.x.kind", SPEED)["layout"]["xaxis"]["type"] == "category"


def test_what_people_wrote_is_text_in_the_picture():
    figure = json.dumps(picture([mark(0, 1, 1, label="<a href='x'>model</a>")], "peak", SPEED))
    assert "<a " not in figure


def test_a_waterfall_climbs_from_one_to_the_whole():
    names = {"a": "compile", "b": "int8"}
    speeds = {"": 100, "a": 131, "b": 122, "ab": 138}
    rates = {frozenset(some): [float(speed)] * 6 for some, speed in speeds.items()}
    data = waterfall(effects(rates, names), "Tokens per second")["data"]
    ends = [bar["base"][0] + bar["y"][0] for bar in data]
    assert [bar["x"][0] for bar in data] == ["compile<br>+22 %", "int8<br>+13 %", "all together<br>+38 %"]
    assert data[0]["base"] == [1.0] and data[1]["base"][0] == pytest.approx(ends[0])
    assert ends[1] == pytest.approx(1.38) == pytest.approx(ends[2])
    assert waterfall(effects({}, names), "Tokens per second") is None


def test_of_more_than_three_what_the_shares_leave_over_has_a_bar():
    names = {name: name for name in "abcd"}
    rates = {config: [10.0 + len(config) ** 2] for config in configurations("abcd")}
    data = waterfall(effects(rates, names), "Tokens per second")["data"]
    assert [bar["x"][0].partition("<")[0] for bar in data] == [*"abcd", "left over", "all together"]
    assert data[4]["base"][0] + data[4]["y"][0] == pytest.approx(data[5]["base"][0] + data[5]["y"][0])


def test_two_addresses_make_a_heat_map_with_an_empty_cell_for_what_is_unknown():
    axes = ["workload.max_new_tokens", "lane.opts.prompt_lookup.guesses"]
    marks = [
        {"number": n, "lane": "A", "values": dict(zip(axes, pair, strict=True)), "figures": {SPEED: value}}
        for n, (pair, value) in enumerate([((8, 1), 10.0), ((16, 1), 12.0), ((8, 2), None), ((16, 2), 15.0)])
    ]
    (cells,) = heatmap(marks, axes, SPEED)["data"]
    assert list(cells["x"]) == ["8", "16"] and list(cells["y"]) == ["1", "2"]
    assert [list(row) for row in cells["z"]] == [[10.0, 12.0], [None, 15.0]]
    assert cells["text"][1][1] == "15 ★" and cells["customdata"][1][1] == [3]
    assert heatmap(marks, axes[:1], SPEED) is None and heatmap([marks[2]], axes, SPEED) is None


@pytest.fixture
def explore(visit):
    page = visit()
    page.locator("#presets input").check(force=True)
    page.click("#preset-demo-without-a-model")
    page.wait_for_selector("#rail input[value=simulated]:checked", state="attached")
    page.click(".top nav a[href='#explore']")
    page.fill("#explore-first input", "Workload: max")
    page.locator("[role=option]:has-text('max new')").first.click()
    page.wait_for_function("document.querySelector('#explore-values :is(input, textarea)').value == '32,64,128'")
    return page


def begin(page, values: str) -> None:
    page.fill("#explore-values :is(input, textarea)", values)
    page.click("#explore-run")


@pytest.mark.browser
def test_a_sweep_fills_its_picture_and_goes_on_while_the_page_is_reloaded(explore):
    page = explore
    begin(page, "4..20")
    page.wait_for_selector(".explore[data-state=running] .title:has-text('of 20')")
    assert page.is_disabled("#explore-run") and page.is_enabled("#explore-stop")
    page.reload()
    page.wait_for_selector(".explore[data-state=running]")
    page.wait_for_selector(".explore[data-state=finished] .title:has-text('Fastest of 17')")
    assert page.locator(".explore tbody tr").count() == 17
    drawn = page.evaluate("document.querySelector('.explore .picture').data.map((t) => t.x.length)")
    assert sum(drawn) == 17
    shot(page, "explore")
    page.locator(".explore tbody button").first.click()
    page.wait_for_function("document.querySelector('#tokens input').value >= 17")
    assert page.evaluate("document.body.dataset.room") == "race" and page.is_visible("#run")
    page.click(".top nav a[href='#explore']")
    assert page.is_enabled("#explore-run")
    assert page.is_disabled(".explore .duel")
    for row in (0, 1):
        page.locator(".explore tbody input").nth(row).check()
    page.click(".explore .duel")
    page.wait_for_selector("text=These points differ in their model or workload")


@pytest.mark.browser
def test_a_sweep_is_stopped_and_what_is_known_stays(explore):
    page = explore
    begin(page, "301..330")
    page.wait_for_selector(".explore tbody tr")
    page.click("#explore-stop")
    page.wait_for_selector(".explore[data-state=cancelled]")
    assert 1 <= page.locator(".explore tbody tr").count() < 30
    page.wait_for_selector("#explore-run:not([disabled])")


@pytest.mark.browser
def test_wrong_values_and_a_lane_with_nothing_to_ablate_are_sentences(explore):
    page = explore
    begin(page, "0,5")
    page.wait_for_selector(".explore[data-state=refused] .title:has-text('greater than or equal to 1')")
    page.click("#explore-kind label:has-text('Ablate')")
    page.click("#explore-run")
    page.wait_for_selector(".explore[data-state=refused] .title:has-text('nothing switched on')")
    page.click("#explore-kind label:has-text('Search')")
    page.fill("#explore-limits :is(input, textarea)", "beauty<=3")
    page.click("#explore-run")
    page.wait_for_selector(".explore[data-state=refused] .title:has-text('nothing that can be limited')")
