"""After the turns: every lossy lane gets its figures from its own worker, or a sentence why it has none."""

import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

from engine.event import Failed, Judged, Phase, Record
from engine.measure.machine import machine
from engine.measure.quality import price
from engine.measure.result import result
from engine.measure.texts import TEXT
from engine.models.fetch import revision
from engine.refusal import Refusal
from engine.run import questions, reading, readings
from engine.run.judging import FOLDER
from engine.run.pool import Pool
from engine.run.runner import Run
from engine.spec import Experiment
from tests.engine.test_quality import by_numpy
from tests.engine.tiny_models import CONTEXT, tiny

TOKENS = 24
ROUNDED = {"opts": {"precision": {"dtype": "bfloat16"}}}
LOSSY = {"B": ROUNDED, "C": {"opts": {"kv_window": {"window": 32}}}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny("llama", tmp_path_factory.mktemp("judging"))


@pytest.fixture(scope="module")
def pool():
    """Workers stay warm from test to test."""
    pool = Pool()
    yield pool
    pool.close()


@pytest.fixture(autouse=True)
def own_readings(tmp_path, monkeypatch):
    monkeypatch.setattr(readings, "home", lambda: tmp_path)


def experiment(folder, lanes: dict, **changes) -> Experiment:
    workload = {"prompts": ["The lamp is lit.", "x"], "max_new_tokens": TOKENS}
    return Experiment.read({"model": str(folder), "rounds": 1, "workload": workload, "lanes": lanes, **changes})


def qualities(records: list[Record]) -> dict[int, dict]:
    found = {
        r.lane: r.event.values["quality"]
        for r in records
        if isinstance(r.event, Judged) and "quality" in r.event.values
    }
    left = list(Path(tempfile.gettempdir()).glob(f"{FOLDER}-{os.getpid()}-*"))
    assert not left, "the reference's logits were left behind"
    return found


def read_phases(records: list[Record]) -> list[Phase]:
    return [r.event for r in records if isinstance(r.event, Phase) and r.event.name == "quality"]


def test_the_figures_are_those_of_the_models_logits_and_come_from_the_file_the_next_time(folder, pool):
    wanted = experiment(folder, {"A": {}, **LOSSY})
    records = list(Run(wanted, pool).records())
    found = qualities(records)
    assert sorted(found) == [1, 2]
    assert found[1]["reference"] == "the unquantized model in float32"
    assert (found[1]["text"]["tokens"], found[1]["prompt"]["tokens"]) == (CONTEXT - 1, 2 * TOKENS)
    text = {name: value for name, value in found[1]["text"].items() if name not in ("tokens", "read")}
    assert text == pytest.approx(independent(folder), abs=1e-4)
    assert found[2]["text"]["kl_mean"] > 0.1 and found[2]["text"]["top1"] < 0.9
    again = list(Run(wanted, pool).records())
    assert read_phases(records) and not read_phases(again)
    for lane, quality in qualities(again).items():
        assert quality["text"] == {**found[lane]["text"], "earlier": True}
    lanes = result(wanted, machine().to_dict(), again)["lanes"]
    assert lanes[0]["quality"] is None and lanes[1]["quality"]["text"]["top1"] == text["top1"]


def independent(folder) -> dict[str, float]:
    """The same figures from one pass of transformers' model in each number format, by numpy."""
    ids = transformers.AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"][:CONTEXT]
    logits = []
    for dtype in (torch.bfloat16, torch.float32):
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        with torch.inference_mode():
            logits.append(model(torch.tensor([ids])).logits[0, :-1].float().numpy())
    return by_numpy(*logits, np.array(ids[1:]))


def test_a_stop_while_a_text_is_read_leaves_a_sentence_and_a_healthy_pool(folder, pool):
    run = Run(experiment(folder, {"A": {}, **LOSSY}), pool)
    records = []
    for record in run.records():
        records.append(record)
        if read_phases([record]):
            run.cancel()
    assert all("Stopped" in quality["why"] or "stopped" in quality["why"] for quality in qualities(records).values())
    assert len(qualities(records)) == 2
    assert not [r for r in records if isinstance(r.event, Failed)], "the lanes themselves had finished"
    assert (
        not readings.known("x")
        and "text" in qualities(list(Run(experiment(folder, {"A": {}, "B": ROUNDED}), pool).records()))[1]
    )


def test_a_reference_that_does_not_fit_is_a_sentence_and_no_lane_is_lost(folder, pool, monkeypatch):
    monkeypatch.setattr(questions, "ROOM", 1e12)
    pool.empty()
    records = list(Run(experiment(folder, {"B": ROUNDED}), pool).records())
    assert "needs" in qualities(records)[0]["why"] and "are free" in qualities(records)[0]["why"]
    assert not pool.idle, "idle workers were ended to make room"
    lane = result(experiment(folder, {"B": ROUNDED}), machine().to_dict(), records)["lanes"][0]
    assert lane["status"] == "finished"


def test_a_lane_that_failed_is_not_read(folder, pool):
    broken = {"opts": {**ROUNDED["opts"], "draft_model": {"model": "/no/such/folder"}}}
    found = qualities(list(Run(experiment(folder, {"A": {}, "B": broken}), pool).records()))
    assert "did not finish" in found[1]["why"]


def test_nothing_is_read_where_nothing_is_lost_or_nobody_asks(folder, pool):
    for wanted in (experiment(folder, {"A": {}}), experiment(folder, {"B": ROUNDED}, quality=False)):
        records = list(Run(wanted, pool).records())
        assert not qualities(records) and not read_phases(records)


def test_a_damaged_file_is_read_anew_and_other_weights_have_another_name(folder, tmp_path):
    name = "a" * 32
    assert readings.keep(name, {"kl_mean": 0.5})["read"] > 0 and readings.known(name)["earlier"]
    for damage in ("{", "[]", '{"kl_mean": 0.5}', "\0"):
        (tmp_path / "readings" / f"{name}.json").write_text(damage)
        assert readings.known(name) is None
    copied = shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copy)
    assert revision(copied) != revision(folder) == revision(folder)


def session(vocabulary: int, context: int | None = None) -> SimpleNamespace:
    return SimpleNamespace(
        architecture=SimpleNamespace(vocabulary=vocabulary, context=context),
        tokenizer=lambda text: {"input_ids": list(range(len(text)))},
        check=lambda workload: [(1, 2, 3)],
    )


@pytest.mark.parametrize(
    ("vocabulary", "context", "answers", "text"),
    [(50_000, None, 512, 2047), (50_000, 1000, 512, 999), (250_000, None, 512, 560), (400_000_000, None, 0, 0)],
)
def test_the_texts_are_as_long_as_the_disk_and_the_context_allow(
    vocabulary, context, answers, text, tmp_path, monkeypatch
):
    monkeypatch.setattr(reading, "_free", lambda folder: 2**40)
    command = {"folder": str(tmp_path), "text": "a" * 9000, "answers": [[0, list(range(300))], [1, list(range(300))]]}
    if not text:
        with pytest.raises(Refusal, match="no room on the disk"):
            reading.passages(session(vocabulary, context), None, command)
        return
    found = reading.passages(session(vocabulary, context), None, command)
    assert sum(len(one["rest"]) for one in found if one["part"] == "prompt") == answers
    assert len(found[-1]["rest"]) == text
    assert sum(len(one["rest"]) for one in found) * vocabulary * 4 <= reading.MOST_BYTES


@pytest.mark.model
def test_the_embedded_model_in_four_bits_is_read_in_seconds_and_named_beside_its_speed(pool):
    lanes = {"A": {}, "B": {"opts": {"bitsandbytes": {"kind": "nf4"}}}}
    wanted = experiment("smollm2-135m", lanes)
    found = result(wanted, machine().to_dict(), list(Run(wanted, pool).records()))
    text = found["lanes"][1]["quality"]["text"]
    assert 0.15 < text["kl_mean"] < 0.4 and 0.58 < text["top1"] < 0.8 and text["perplexity_ratio"] > 1.05
    assert 1900 < text["tokens"] < 2048
    assert "KL divergence of 0." in price(found["lanes"][1])
