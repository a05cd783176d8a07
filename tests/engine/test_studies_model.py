"""A sweep, an ablation and a search of the embedded model, a few tokens each."""

import json

import pytest

from engine.__main__ import main

pytestmark = pytest.mark.model
FEW = ["--set", "workload.max_new_tokens=4"]


@pytest.fixture
def found(tmp_path, monkeypatch):
    monkeypatch.setenv("PITLANE_HOME", str(tmp_path))

    def run(*arguments: str) -> dict:
        assert main([*arguments, *FEW, "--json", str(tmp_path / "found.json")]) == 0
        return json.loads((tmp_path / "found.json").read_text())

    return run


def test_points_that_share_a_model_are_measured_with_speed_memory_and_loss(found):
    over = ["--over", "lane.opts.precision.dtype=auto,bfloat16"]
    view = found("sweep", "does-16-bit-pay", "--lane", "A", "--rounds", "1", *over)
    plain, narrow = (mark["figures"] for mark in view["marks"])
    assert plain["weights"] > 1.8 * narrow["weights"] and plain["peak"] > narrow["peak"]
    assert plain["kl"] == 0 < narrow["kl"] < 0.005
    assert all(mark["figures"]["output_tok_per_s"] > 0 for mark in view["marks"])


def test_a_toggle_is_ablated(found):
    view = found("ablate", "when-does-guessing-pay", "--passes", "1")
    assert view["ended"] == view["total"] == 2
    assert view["effects"]["together"]["ratio"] > 0 and view["sentence"].startswith("A quick look: ")


def test_a_search_keeps_its_memory_limit(found):
    over = ["--over", "lane.opts.precision.dtype=auto,bfloat16", "--over", "lane.opts.prompt_lookup=false,true"]
    view = found("search", "--rounds", "1", "--limit", "weights<=300MB", "--budget", "4", *over)
    best = next(mark for mark in view["marks"] if mark["number"] == view["best"])
    assert best["values"]["lane.opts.precision.dtype"] == "bfloat16" and best["figures"]["weights"] <= 300e6
