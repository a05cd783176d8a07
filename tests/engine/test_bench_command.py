"""The bench on the command line: deadlines, parts that break, lanes that are refused, and rows that can be planned."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from engine.__main__ import main
from engine.bench import alone, mailbox, parts, taping
from engine.bench.checks import checks
from engine.bench.interleaved import PAIRS, interleaved
from engine.bench.parts import Bench, Part, chosen, conduct
from engine.bench.report import FIGURES, TEXT, Report
from engine.bench.rows import CPU, GPU, Row
from engine.bench.sides import Side
from engine.measure.machine import Gpu, machine
from engine.plan import Plan
from engine.presets import presets
from engine.refusal import Refusal
from engine.registry import optimizations
from engine.spec import Experiment, plan_for
from tests.bench import __main__ as tables
from tests.bench import alone as every
from tests.bench import arrivals, ladder
from tests.engine.tiny import tiny

CARD = Gpu("NVIDIA H200", 143771 * 2**20, "9.0", "580")
WORKLOAD = {"prompts": ["go"], "max_new_tokens": 4}


def timetable(**knobs) -> dict:
    return {"backend": {"name": "simulated", "ttft_ms": 1.0, "tpot_ms": 1.0, **knobs}}


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_real", lambda: "smollm2-135m")
    made = Bench(False, Report(tmp_path / "out", lambda text: None))
    yield made
    made.conduct([], 1.0)


def kept(bench: Bench) -> dict:
    return json.loads((bench.report.folder / FIGURES).read_text())


def test_what_cannot_be_is_one_sentence(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_real", lambda: "smollm2-135m")
    wrong = [["--only", "nothing"], ["--minutes", "0"], ["--out", str(Path(__file__) / "below")]]
    for arguments in [*wrong, *([] if machine().gpus else [["--gpu"]])]:
        assert main(["bench", "--out", str(tmp_path), *arguments]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "Traceback" not in said


def test_a_row_is_told_and_kept_and_a_lane_that_breaks_costs_only_itself(bench):
    lanes = {"slow": timetable(tpot_ms=4.0), "fast": timetable(), "broken": timetable(fault="raise", at=1)}
    row = Row("mine", "Which is faster?", "smollm2-135m", lanes, WORKLOAD, rounds=2)
    assert conduct([bench._row(row)], 1.0, bench.report)
    found = kept(bench)["rows"]["mine"]["lanes"]
    assert [lane["status"] for lane in found] == ["finished", "finished", "failed"]
    text = (bench.report.folder / TEXT).read_text()
    assert "Which is faster?" in text and "| fast |" in text and "a fault on demand" in text
    fast = next(line for line in text.splitlines() if line.startswith("| fast |"))
    assert float(fast.split("|")[3]) < 4.0 and "pairs" in fast


def test_a_row_ends_when_its_time_is_over_and_keeps_what_it_has(bench):
    lanes = {"A": timetable(tpot_ms=100.0)}
    row = Row("long", "Too long?", "smollm2-135m", lanes, {**WORKLOAD, "max_new_tokens": 16}, rounds=64)
    bench._row(row).do(5.0)
    (lane,) = kept(bench)["rows"]["long"]["lanes"]
    assert lane["status"] == "cancelled" and 0 < len(lane["rounds"]) < 8
    assert "stopped after 5 s" in (bench.report.folder / TEXT).read_text()


def test_parts_that_break_or_come_too_late_are_told_and_the_others_run(bench):
    ran = []

    def broken(seconds):
        raise ValueError("no such thing")

    def refused(seconds):
        raise Refusal("Not like this.", "Like that.")

    several = [Part("a", "?", 1.0, broken), Part("b", "?", 1.0, refused), Part("c", "?", 500.0, ran.append),
               Part("d", "?", 1.0, ran.append)]  # fmt: skip
    assert not conduct(several, 1.0, bench.report)
    assert ran == [2.0]
    missing = kept(bench)["not run"]
    assert missing["a"] == "broke with ValueError: no such thing" and missing["b"] == "Not like this. Like that."
    assert "out of time" in missing["c"] and "d" not in missing


def test_parts_are_chosen_by_the_beginnings_of_their_names(bench):
    every = list(bench.parts())
    assert [part.name for part in chosen(every, [])] == ["checks", "ceilings", *(row.name for row in CPU)]
    assert [part.name for part in chosen(every, ["pack", "che", "packed"])] == ["packed", "checks"]


def test_a_program_beside_it_is_ended_in_time_and_what_it_said_is_kept():
    lines, status = Side(["-c", "import time; print('so far', flush=True); time.sleep(60)"]).end(0.0)
    assert status is None and lines in ([], ["so far"])
    assert Side(["-c", "print('all')"]).end(float("inf")) == (["all"], 0)


SAID = {"model": "m", "pairs": 12, "ratio": 1.0016, "half": 0.001, "least": 0.9987, "most": 1.0043, "with_ms": 0.402,
        "without_ms": 0.4015}  # fmt: skip


@pytest.mark.parametrize(("said", "status", "told"), [
    (["a warning", json.dumps(SAID)], 0, "0.402 ms with the mailbox and 0.402 without, 1.0016 times (95 %: 0.0010"),
    (["RuntimeError: no GPU"], 1, "The mailbox was not measured: RuntimeError: no GPU"),
    (["so far"], None, "The mailbox was not measured: out of time after: so far"),
])  # fmt: skip
def test_what_the_mailbox_costs_is_told_or_why_it_is_not_known(said, status, told, bench, monkeypatch):
    monkeypatch.setattr(Side, "__init__", lambda self, arguments: None)
    monkeypatch.setattr(Side, "end", lambda self, until: (said, status))
    conduct([Part("mailbox", "?", 1.0, lambda seconds: bench._mailbox("mailbox", "m", seconds))], 1.0, bench.report)
    assert told in (bench.report.folder / TEXT).read_text()
    assert kept(bench)["figures"] == ({"mailbox": SAID} if status == 0 else {})


RACED = {"model": "m", "steps": 256, "same": 250, "off": 0.004, "pairs": 12, "least": 0.6, "most": 1.2,
         "persistent_ms": 0.25, "recorded_ms": 0.4}  # fmt: skip


@pytest.mark.parametrize(("said", "status", "told"), [
    ([json.dumps({**RACED, "ratio": 0.625, "half": 0.01})], 0, "0.250 ms as one kernel that stays and 0.400 as a "
     "graph of kernels, 0.625 times (95 %: 0.010 either way; 12 pairs: 0.600 to 1.200). The persistent kernel wins. "
     "The first 250 of 256 tokens are the same, and the first logits 0.40% apart."),
    ([json.dumps({**RACED, "ratio": 1.02, "half": 0.01})], 0, "The graph wins."),
    ([json.dumps({**RACED, "ratio": 1.02, "half": 0.03})], 0, "Neither wins."),
    (["The programs have not met."], 1, "The persistent step was not measured: The programs have not met."),
])  # fmt: skip
def test_whether_the_persistent_step_wins_is_told(said, status, told, bench, monkeypatch):
    monkeypatch.setattr(Side, "__init__", lambda self, arguments: None)
    monkeypatch.setattr(Side, "end", lambda self, until: (said, status))
    conduct([Part("p", "?", 1.0, lambda seconds: bench._persistent("p", "m", seconds))], 1.0, bench.report)
    assert told in (bench.report.folder / TEXT).read_text()
    assert bool(kept(bench)["figures"]) == (status == 0)


def test_times_are_taken_in_turns_and_the_first_pair_warms_up():
    order, times = [], iter(range(1, 100))
    turns = {name: lambda name=name: order.append(name) or next(times) for name in "AB"}
    found = interleaved(turns)
    assert "".join(order[:8]) == "ABBAABBA" and len(order) == 2 * (PAIRS + 1)
    # pair k has the times 2 k + 1 and 2 k + 2, and every other pair begins with B
    ratios = [(2 * k + 2) / (2 * k + 1) if k % 2 else (2 * k + 1) / (2 * k + 2) for k in range(1, PAIRS + 1)]
    assert found["ratio"] == pytest.approx(sum(ratios) / PAIRS)
    assert (found["least"], found["most"]) == (min(ratios), max(ratios))


@torch.inference_mode()
def test_the_step_without_a_mailbox_is_the_same_but_for_it():
    pytest.importorskip("triton", reason="Triton is not installed")
    from engine.decode.gpu_native import GpuNative

    session = SimpleNamespace(model=tiny("llama"))
    session.native = GpuNative(session.model, Plan("transformers", "m", native=True))
    told, silent = (mailbox._runners(session)[name].step for name in ("with", "without"))
    assert told.feed.mailbox and silent.feed.mailbox is None
    assert told.whole.weights is silent.whole.weights is session.native.weights and not told.banned


def test_alone_every_optimization_is_tried_once_and_what_is_slow_comes_last():
    rows = list(alone.rows())
    labels = [label for row in rows for label in row.lanes if label != "plain"]
    assert len(labels) == len({*labels}) and {label.split()[0] for label in labels} == {*optimizations()}
    slow = [any(label.startswith(alone.SLOW) for label in row.lanes) for row in rows]
    assert slow == sorted(slow) and all(row.seconds > alone.SECONDS for row in rows[slow.index(True) :])


def test_every_row_can_be_planned_on_a_gpu(monkeypatch):
    there = replace(machine(), gpus=(CARD,), compiler="g++")
    names = [row.name for row in (*GPU, *alone.rows())]
    assert len(names) == len({*names})
    for row in (*GPU, *CPU, *alone.rows()):
        asked = row.experiment()
        sentences = []
        for lane in asked.lanes.values():
            try:
                plan_for(lane, asked.model, there)
            except Refusal as refusal:
                sentences.append(refusal.why)
        assert len(sentences) < len(asked.lanes), sentences


def test_recordings_are_of_presets_and_named_after_the_gpu(monkeypatch):
    assert {*taping.PRESETS} <= {*presets()}
    for name, end in (("NVIDIA H200", "-h200"), ("NVIDIA H100 80GB HBM3", "-h100"), ("Graphics", "-gpu")):
        monkeypatch.setattr(taping, "machine", lambda name=name: replace(machine(), gpus=(replace(CARD, name=name),)))
        assert taping.suffix() == end


def test_rungs_that_write_something_else_are_found(tiny_model, monkeypatch):
    from engine.bench import checks as module

    monkeypatch.setattr(module, "RUNGS", {"batch": module.RUNGS["batch"], "CUDA graph": {"cuda_graph": {}}})
    monkeypatch.setattr(module, "PACKED", {})
    monkeypatch.setattr(module, "WORKLOAD", module.WORKLOAD.model_copy(update={"prompts": ("a lamp", "the sea is")}))
    first = {one["name"]: one for one in checks("cpu", str(tiny_model))}
    assert first["batch"]["verdict"] == module.HELD and "are the plain loop's" in first["batch"]["sentence"]
    assert first["CUDA graph"]["verdict"] == (module.HELD if machine().gpus else module.ABSENT)
    right, monotone = module._tokens, iter([0, 1])
    monkeypatch.setattr(module, "_tokens", lambda *a: {r: [next(monotone)] for r, t in right(*a).items() if r == 0})
    assert next(iter(checks("cpu", str(tiny_model))))["verdict"] == module.BROKE


def test_workers_are_started_ahead_and_each_is_used_once(bench):
    row = Row("mine", "?", "smollm2-135m", {"A": timetable(), "B": timetable(tpot_ms=2.0)}, WORKLOAD, rounds=1)
    part = bench._row(row)
    bench.stock.fill([part.asked], parts.PATIENCE)
    ahead = [child.process.pid for child in bench.stock._all()]
    bench.stock.settle(20.0)
    part.do(10.0)
    used = [child.process.pid for _, child in bench.pool.idle]
    assert len(ahead) == 2 and {*ahead} == {*used} and bench.stock._all() == []
    assert [lane["status"] for lane in kept(bench)["rows"]["mine"]["lanes"]] == ["finished", "finished"]


def test_the_bench_of_the_closing_tables_still_fits_the_engine():
    """No other test runs it: a name that moved in the engine would be found on the last day."""
    assert {"alone", "ladder", "arrivals"} <= {*tables.SUITES} and len(arrivals.RATES) == 3
    here = replace(machine(), gpus=(), compiler="g++")
    assert len([case for case, why in every.cases() if not why]) >= 20
    for name, (workload, generates, ours) in ladder.CASES.items():
        lanes = {"A": {"backend": "generate", "opts": generates}, "B": {"opts": ours}}
        for lane in Experiment.read({"workload": workload, "lanes": lanes}).lanes.values():
            assert plan_for(lane, "smollm2-135m", here), name
    for lane in Experiment.read({"workload": WORKLOAD, "lanes": arrivals.LANES}).lanes.values():
        assert plan_for(lane, "smollm2-135m", here)
