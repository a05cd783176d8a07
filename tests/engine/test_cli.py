"""The command line, as a process of its own."""

import json

import pytest

from engine.lessons import lessons
from engine.presets import presets
from engine.registry import optimizations
from tests.engine.processes import python

DEMO = ("run", "demo-without-a-model", "--set", "lane.backend.tpot_ms=2", "--set", "lane.backend.ttft_ms=5")


@pytest.fixture
def engine(tmp_path):
    def call(*arguments: str):
        return python("-m", "engine", *arguments, PITLANE_HOME=str(tmp_path / "home"))

    return call


def test_a_run_prints_a_table_writes_the_contract_and_can_be_replayed(engine, tmp_path):
    file = tmp_path / "result.json"
    done = engine(*DEMO, "--rounds", "2", "--json", str(file))
    assert done.returncode == 0, done.stderr
    assert "| Tokens per second, tok/s" in done.stdout and "finished, simulated" in done.stdout
    found = json.loads(file.read_text())
    assert set(found) == {"schema", "experiment", "machine", "lanes", "verdicts"} and found["schema"] == 1
    lane = found["lanes"][1]
    assert {"name", "lane", "effective", "status", "why", "hint", "phases", "rounds", "metrics", "memory", "tokens",
            "text", "equality", "speculation", "warmup", "occupancy", "quality", "ceiling", "energy", "cost",
            "conditions", "findings"} == set(lane)  # fmt: skip
    assert len(lane["rounds"]) == 2 and lane["metrics"]["tpot_ms"] > 0 and len(lane["tokens"][0]) == 60
    assert {"fetch_s", "load_s", "compile_s", "warmup_s"} <= set(lane["phases"])
    assert {"weights_bytes", "kv_bytes", "peak_bytes", "rss_bytes"} <= set(lane["memory"])
    verdict = found["verdicts"][0]
    assert {"lane", "over", "metric", "ratio", "low", "high", "pairs", "word", "sentence",
            "detectable", "withdrawn"} == set(verdict)  # fmt: skip
    assert verdict["word"] == "cannot tell" and "Simulated" in verdict["sentence"]
    (row,) = json.loads(engine("history", "--json").stdout)
    assert row["state"] == "finished"
    again = engine("replay", row["id"][:8])
    assert again.returncode == 0 and "The quick lane" in again.stdout
    assert json.loads(engine("replay", row["id"], "--json").stdout) == found


def test_a_lane_that_fails_is_exit_status_1(engine):
    done = engine(*DEMO, "--rounds", "1", "--set", "lanes.B.backend.fault=raise")
    assert done.returncode == 1
    assert "ArithmeticError" in done.stdout and "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "no-such-preset"), "There is no preset"),
        ((*DEMO, "--set", "wheels=4"), "there is no wheels"),
        ((*DEMO, "--set", "rounds"), "no assignment"),
        ((*DEMO, "--rounds", "0"), "rounds"),
        ((*DEMO, "--set", "workload.max_new_tokens=NaN"), "max_new_tokens"),
        ((*DEMO, "--json", "/no/such/folder/x.json"), "cannot be written"),
        ((*DEMO, "--json", "/tmp"), "cannot be written"),
        (("run", "missing.toml"), "no file"),
        (("replay", "nothing"), "There is no run"),
        (("drive",), "invalid choice"),
        (("run",), "required"),
    ],
)
def test_bad_arguments_are_exit_status_2(engine, arguments, says):
    done = engine(*arguments)
    assert done.returncode == 2 and says in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_model_is_refused_with_what_exists(engine):
    done = engine("run", "does-16-bit-pay", "--rounds", "1", "--set", "model=smolm2-135m")
    assert done.returncode == 2 and "smollm2-135m" in done.stderr


@pytest.mark.parametrize("listing", ["models", "optimizations", "machine", "presets", "history", "lessons"])
def test_every_listing_reads_and_has_json(engine, listing):
    assert engine(listing).returncode == 0
    data = json.loads(engine(listing, "--json").stdout)
    if listing == "optimizations":
        assert [row["name"] for row in data] == list(optimizations())
        assert all(row["lesson"] and row["title"] for row in data)
    if listing == "presets":
        assert [row["name"] for row in data] == list(presets())
    if listing == "lessons":
        assert [row["name"] for row in data] == list(lessons())


def test_a_lesson_is_printed_whole_and_an_unknown_one_is_refused(engine):
    name, one = next(iter(lessons().items()))
    said = " ".join(engine("lessons", name).stdout.split())
    assert all(text in said for text in (one.question, one.explanation, *(step.say for step in one.next)))
    assert f"python -m engine run {one.preset}" in said
    assert "faster, same, slower" in engine("lessons", "when-does-a-guess-cost").stdout
    assert json.loads(engine("lessons", "when-does-a-guess-cost", "--json").stdout)["choices"]
    refused = engine("lessons", "no-such-lesson")
    assert refused.returncode == 2 and "when-is-a-guess-free" in refused.stderr


@pytest.mark.model
def test_the_embedded_model_races_on_the_command_line(engine, tmp_path):
    file = tmp_path / "result.json"
    done = engine("run", "does-16-bit-pay", "--rounds", "1", "--set", "workload.max_new_tokens=8", "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = json.loads(file.read_text())["lanes"]
    assert (first["effective"]["dtype"], second["effective"]["dtype"]) == ("float32", "bfloat16")
    assert first["memory"]["weights_bytes"] == pytest.approx(2 * second["memory"]["weights_bytes"], rel=0.01)
    assert first["text"][0].startswith("The sky is blue")
    assert first["memory"]["kv_bytes"] > 0 and first["metrics"]["ttft_ms"] > 0
