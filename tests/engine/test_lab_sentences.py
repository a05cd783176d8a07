"""What a lab says follows from its figures: made-up times go in, the sentence that they deserve comes out."""

import json
from dataclasses import replace

import pytest

from engine.event import Finished, Point
from engine.labs import apart, fits, middle, size
from engine.measure.machine import machine
from engine.measure.points import Points
from engine.registry import labs

HERE = replace(machine(), gpus=())


def test_small_words():
    rooms = {"L3": 100, "L1d": 10}
    assert [fits(amount, rooms) for amount in (10, 11, 101)] == ["L1d", "L3", "memory"]
    assert middle([3, 1, 2]) == 2 and middle([1, 2, 3, 4], 0.25) == 1.75 and middle([5], 0.75) == 5
    assert [size(n) for n in (12, 48 << 10, 9_439_488, 32 << 20, 3 << 30)] == [
        "12 bytes",
        "48 KB",
        "9.0 MB",
        "32 MB",
        "3 GB",
    ]
    quick = {"seconds": 1.0, "low": 0.9, "high": 1.1}
    assert apart(quick, {"seconds": 1.2, "low": 1.15, "high": 1.3})
    assert not apart(quick, {"seconds": 1.2, "low": 1.05, "high": 1.3})
    assert not apart(quick, {"seconds": 1.09, "low": 1.15, "high": 1.2})


def timed(lab, seconds: dict[int, list[float]], **facts) -> Points:
    points = Points(lab, lab.grid(HERE), replace(HERE, caches={"L1d": 48 << 10, "L2": 1 << 20, "L3": 32 << 20}))
    for index, times in seconds.items():
        for took in times:
            points.see(Point(0.0, {"index": index, "seconds": took, "error": 0.0, **facts}))
    return points


def test_the_fold_keeps_median_and_middle_half():
    lab = labs()["tiled_product"]()
    points = timed(lab, {0: [3.0, 1.0, 2.0, 4.0, 100.0]})
    entry = points.entries()[0]
    assert (entry["seconds"], entry["low"], entry["high"], entry["repeats"]) == (3.0, 2.0, 4.0, 5)
    assert points.rounds() == 0 and "Not enough" in points.result()["sentence"]
    points.see(Finished(1.0, {"others": 0.4}))
    result = json.loads(json.dumps(points.result()))
    assert result["status"] == "finished" and "40%" in result["caution"]
    assert result["lab"] == "tiled_product" and len(result["points"]) == len(lab.grid(HERE))


def product_times(lab, cost) -> dict[int, list[float]]:
    """Seconds of every point: `cost(rows, tokens)` for tiles, a second for the rest."""
    return {
        index: [cost(point["rows"], point["tokens"])] * 3 if "rows" in point else [1.0] * 3
        for index, point in enumerate(lab.grid(HERE))
    }


@pytest.mark.parametrize(
    ("cost", "says"),
    [
        (
            lambda rows, tokens: (3.0 if rows > 8192 else 1.0) / tokens,
            ["up to 8,192 rows", "18 MB", "32 MB of L3", "3.0×"],
        ),
        (lambda rows, tokens: 2.0 if rows > 256 else 1.0, ["up to 256 rows", "1 MB of L2", "from L3 again", "2.0×"]),
        (lambda rows, tokens: 1.0 / tokens, ["size of the tile matters little", "used 8 times: 8.0× against 1"]),
        (lambda rows, tokens: 1.0, ["No tile is clearly faster"]),
    ],
)
def test_the_product_says_which_cache_and_why(cost, says):
    lab = labs()["tiled_product"](device="cpu")
    sentence = timed(lab, product_times(lab, cost)).result()["sentence"]
    assert all(text in sentence for text in says), sentence


def test_a_matrix_that_fits_needs_no_tile():
    lab = labs()["tiled_product"](device="cpu", rows=4096)
    sentence = timed(lab, product_times(lab, lambda rows, tokens: 1.0)).result()["sentence"]
    assert "stay in the cache" in sentence and "1.00× the untiled loop" in sentence


def test_of_equals_the_smallest_tile_is_best():
    lab = labs()["tiled_product"](device="cpu")
    best = timed(lab, product_times(lab, lambda rows, tokens: 1.0)).result()["best"]
    assert (best["rows"], best["tokens"]) == (4, 1)


def test_the_best_is_the_largest_figure_and_what_ties_with_it_is_said():
    lab = labs()["tiled_product"](device="cpu")
    noisy = {(8192, 8): [0.9, 1.0, 2.0], (4096, 8): [1.0, 1.1, 2.1], (4, 1): [1.3, 1.4, 2.2]}
    grid = enumerate(lab.grid(HERE))
    seconds = {index: noisy.get((one.get("rows"), one.get("tokens")), [9.0] * 3) for index, one in grid}
    result = timed(lab, seconds).result()
    measured = [one["gflops"] for one in result["points"] if one["kind"] == "tile"]
    assert result["best"]["gflops"] == max(measured), "not the smallest of those that tie"
    assert "Best: 8,192 rows and 8 tokens at once, 3.6 GFLOP/s" in result["sentence"]
    assert "no better than 2 others: 3.6 to 2.6 GFLOP/s are the same here" in result["sentence"]
    busy = timed(lab, seconds)
    busy.see(Finished(1.0, {"others": 0.8}))
    told = busy.result()
    assert told["best"] is None, "nothing is framed where nothing is named"
    assert told["sentence"].startswith(
        "No best is named: other processes used 80% of the processor, and 3 points of 3.6"
    )
    alone = {index: [one[0]] * 3 for index, one in seconds.items()}
    assert "are the same" not in timed(lab, alone).result()["sentence"]


def test_attention_says_what_the_matrix_costs():
    lab = labs()["tiled_attention"](device="cpu")
    cost = {"untiled": 3.0, "library": 2.0}
    seconds = {
        n: [cost.get(p["kind"]) or (4.0 if p["queries"] == 4 else 1.0)] * 3 for n, p in enumerate(lab.grid(HERE))
    }
    points = timed(lab, seconds, extra_bytes=1000)
    points.known[0]["extra_bytes"] = 80 << 20
    sentence = points.result()["sentence"]
    for text in (
        "3.0× as fast as writing out",
        "2.0× as fast as SDPA",
        "less than 1 MB",
        "80 MB",
        "With only 4 queries",
    ):
        assert text in sentence
    even = timed(lab, {index: [1.0] * 3 for index in seconds}).result()["sentence"]
    assert "no clear gain" in even and "With only" not in even


def test_the_context_lab_says_from_where_on_flash_wins():
    lab = labs()["attention_context"](device="cpu")
    cost = {"eager": lambda n: n**2 / 1e6, "math": lambda n: n**2 / 1e6, "flash": lambda n: max(n / 4e3, 0.1)}
    seconds = {n: [cost[p["kernel"]](p["context"])] * 3 for n, p in enumerate(lab.grid(HERE)) if p["kernel"] in cost}
    result = timed(lab, seconds).result()
    assert result["best"]["kernel"] == "flash" and result["best"]["context"] == 2048
    assert "from 512 tokens on" in result["sentence"] and "8.2× as fast as eager" in result["sentence"]
    slow = {n: [1.0] * 3 for n in seconds}
    assert "not clearly quicker" in timed(lab, slow).result()["sentence"]


def test_thread_scaling_says_gain_and_efficiency():
    lab, four = labs()["thread_scaling"](), replace(HERE, cores=4)
    wanted = lab.grid(four)
    assert [p["count"] for p in wanted if p["kind"] == "read"] == [1, 2, 3, 4, 8]
    points = Points(lab, wanted, four)
    for index, point in enumerate(wanted):
        count = point["count"]
        took = {"read": 1 / min(count, 2), "prefill": 1 / min(count, 4) + 0.5 * (count > 4), "decode": 1.0}[
            point["kind"]
        ]
        points.see(Point(0.0, {"index": index, "seconds": took}))
    sentence = points.result()["sentence"]
    assert "Reading memory gains 2.0× with 2 threads (100 % efficiency" in sentence
    assert "product of a prompt gains 4.0× with 4 threads" in sentence
    assert "product of one token gains nothing" in sentence and "make it slower" in sentence
