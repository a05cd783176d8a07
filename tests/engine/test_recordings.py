"""The recordings: whole, told alike by today's engine, without a trace of who made them; read beside the history."""

import getpass
import gzip
import json
import os
import re
import socket
import sys
from dataclasses import replace
from pathlib import Path
from random import randbytes
from typing import Any

import pytest

from engine.event import Failed, Finished, Memory, Power, Record
from engine.export import copy, entries
from engine.measure.machine import machine
from engine.measure.result import result
from engine.refusal import Refusal
from engine.run import recordings
from engine.run.columns import columns
from engine.run.jobs import Jobs
from engine.run.recordings import FOLDER, LARGEST, PLACE, SUFFIX, Library, Recording, recorded, recording, shelf
from engine.run.store import Store, outcome
from engine.spec import Experiment
from tests.engine.processes import python
from tests.engine.runs import experiment, keep

RUN = "a" * 32
FEWEST = 8
FILES = sorted(FOLDER.glob(f"*{SUFFIX}"))
NAMES = [path.name.removesuffix(SUFFIX) for path in FILES]


def test_there_are_enough_and_each_is_read():
    assert len(FILES) >= FEWEST and shelf().faults == ()
    assert [*shelf().recordings] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_is_a_real_run_that_says_where_it_was_made(name):
    found = recorded(name)
    machine = found.entry["result"]["machine"]
    assert found.entry["machine"] == machine and machine["processor"] and machine["cores"] and machine["packages"]
    assert re.fullmatch(r"recorded on \S.* GiB, \d+ [A-Z][a-z]+ \d{4}", found.label)
    assert found.entry["state"] == "finished" and not found.entry["simulated"]
    assert all(one["status"] == "finished" for one in found.entry["result"]["lanes"])
    assert found.entry["sentence"] and "A quick look" not in found.entry["sentence"]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_recording_says_follows_from_its_records(name):
    entry = recorded(name).entry
    asked = Experiment.read(entry["experiment"])
    told = json.loads(json.dumps(result(asked, entry["machine"], recorded(name).records())))
    assert told["verdicts"] == entry["result"]["verdicts"] and outcome(told) == entry["sentence"]
    for now, then in zip(told["lanes"], entry["result"]["lanes"], strict=True):
        assert now["metrics"] == then["metrics"] and now["text"] == then["text"]
        assert [turn["withdrawn"] for turn in now["rounds"]] == [turn["withdrawn"] for turn in then["rounds"]]


@pytest.mark.parametrize(("path", "name"), [*zip(FILES, NAMES, strict=True)], ids=NAMES)
def test_a_recording_names_no_place_user_or_host_and_can_be_imported(path, name, tmp_path):
    text = gzip.decompress(path.read_bytes()).decode()
    assert path.stat().st_size <= LARGEST and not PLACE.search(text)
    assert {*copy.read(text.encode())[0]} == {*copy.Entry.model_fields}, "no owner, no process"
    for who in {getpass.getuser(), socket.gethostname()} - {"root", "vm", "localhost"}:
        assert who not in text
    store = Store(tmp_path / "history.db")
    copy.take(store, copy.read(text.encode()), "me")
    assert store.history("me")[0]["title"] == recorded(name).entry["title"]


@pytest.fixture
def library(tmp_path) -> Library:
    library = Library(tmp_path / "history.db")
    keep(library, RUN, experiment("Mine"))
    return library


def test_a_recording_is_read_by_name_id_and_beginning_beside_the_history(library):
    own = recorded("does-16-bit-pay")
    for name in (own.name, own.entry["id"], own.entry["id"][:8]):
        assert library.run(name)["recorded"] == own.label and library.run(name)["owner"] == ""
        assert library.records(name, 3) == own.records()[3:]
    assert library.experiment(own.name) == Experiment.read(own.entry["experiment"])
    assert library.run(RUN[:8])["title"] == "Mine" and [row["id"] for row in library.history()] == [RUN]
    with pytest.raises(Refusal, match="no run nothing"):
        library.run("nothing")
    assert recorded(own.entry["id"][:7]) is None and recorded("") is None


def test_a_recording_is_compared_with_a_run_of_ones_own_and_saved(library):
    label = recorded("does-16-bit-pay").label
    assert [one.recorded for one in columns(library, [RUN, "does-16-bit-pay:B"])] == ["", "", label]
    assert [one["title"] for one in entries(library, ["does-16-bit-pay", RUN])] == ["Do 16-bit numbers pay?", "Mine"]


def test_the_page_reads_a_recording_and_no_run_by_its_beginning(library):
    jobs = Jobs(library)
    own = recorded("does-16-bit-pay").entry["id"]
    assert jobs.state(own) == "finished" and jobs.owner(own) == "" and jobs.records(own)[0].lane in (0, 1)
    assert jobs.experiment(RUN).title == "Mine"
    for read in (jobs.state, jobs.result, jobs.experiment, jobs.owner):
        with pytest.raises(Refusal, match="whole id"):
            read(RUN[:31])
    jobs.close()


def _changed(data: bytes) -> bytes:
    return gzip.compress(gzip.decompress(data).replace(b"finished", b"furnished"))


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:99] + data[100:], _changed])
def test_a_damaged_recording_is_left_out_and_said(damage, tmp_path):
    data = FILES[0].read_bytes()
    (tmp_path / f"whole{SUFFIX}").write_bytes(data)
    (tmp_path / f"torn{SUFFIX}").write_bytes(damage(data))
    found = shelf(tmp_path)
    assert [*found.recordings] == ["whole"] and "The recording torn cannot be read." in found.faults[0]


def test_what_tells_too_much_or_is_not_real_is_no_recording(library):
    (entry,) = entries(library, [RUN])
    assert Recording("mine", copy.read(gzip.decompress(recording(entry)))[0]).entry["sentence"] == entry["sentence"]
    said = Record(0, None, Failed(0.0, "There is no file /home/somebody/model.")).line()
    for worse, why in (
        ({"simulated": True}, "simulated"),
        ({"state": "cancelled"}, "cancelled"),
        ({"records": [*entry["records"], said]}, "a place on this machine: /home/somebody"),
        ({"title": randbytes(LARGEST).hex()}, "are the most"),
    ):
        with pytest.raises(Refusal, match=why):
            recording({**entry, **worse})


def test_the_command_line_knows_recordings(tmp_path):
    home = {"PITLANE_HOME": str(tmp_path)}
    listed = python("-m", "engine", "history", "--recordings", "--search", "16-bit numbers", **home).stdout
    assert "does-16-bit-pay" in listed and "Recorded on" in listed and "poem" not in listed
    shown = json.loads(python("-m", "engine", "replay", "does-16-bit-pay", "--json", **home).stdout)
    assert shown["machine"] == recorded("does-16-bit-pay").entry["machine"]
    assert "recorded on" in python("-m", "engine", "compare", "does-16-bit-pay", **home).stdout
    keep(store := Store(tmp_path / "history.db"), RUN, experiment("Mine"))
    store.close()
    made = python("-m", "engine", "record", RUN[:8], "--to", str(tmp_path / f"mine{SUFFIX}"), **home)
    assert "bytes" in made.stderr and recordings.shelf(tmp_path).recordings["mine"].entry["id"] == RUN


def test_a_machine_is_told_without_the_place_of_its_compiler(monkeypatch):
    """Which would be a place on somebody's machine, and no run of it could become a recording."""
    monkeypatch.setenv("CXX", sys.executable)
    assert machine.__wrapped__().compiler == Path(sys.executable).name


DRIVER = """#!/bin/sh
echo "NVIDIA H200, 143771, 9.0, 580.95.05"
"""


def test_a_run_on_a_gpu_becomes_a_recording(monkeypatch, tmp_path):
    """Simulated: the machine's record as a driver's answer makes it, and what only a GPU's lane says in its events."""
    (tmp_path / "nvidia-smi").write_text(DRIVER)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CXX", sys.executable)
    monkeypatch.setattr("engine.measure.machine._version", lambda package: "2.11.0+cu130")
    card = machine.__wrapped__()
    assert card.gpus[0].name == "NVIDIA H200"
    entry = dict(recorded("does-16-bit-pay").entry)
    records = [Record.parse(line) for line in entry["records"]]
    drawn = Power(records[-1].event.t, 90.0, 0.2, "NVML GPU-8a6f")
    records = [Record(one.lane, one.round, _on_a_gpu(one.event)) for one in records]
    lines = [one.line() for one in (*records[:-1], Record(0, 0, drawn), records[-1])]
    told = {**card.to_dict(), "measured": entry["machine"]["measured"]}
    found = Recording("gpu", copy.read(gzip.decompress(recording({**entry, "machine": told, "records": lines})))[0])
    assert found.label.startswith("recorded on NVIDIA H200 · 140 GiB")
    assert found.entry["result"]["machine"]["gpus"][0]["capability"] == "9.0"
    assert {lane["effective"]["device"] for lane in found.entry["result"]["lanes"]} == {"cuda:0"}


def _on_a_gpu(event: Any) -> Any:
    if isinstance(event, Memory):
        seen = {"allocated": 300_000_000, "reserved": 400_000_000, "device": 900_000_000, "graphs": 20_000_000}
        return replace(event, **seen)
    if isinstance(event, Finished) and "launches" in event.effective:
        top = [{"name": "_skinny_kernel", "count": 30, "share": 0.5}]
        launched = {**event.effective["launches"], "unit": "kernels", "calls": 1, "busy_ms": 0.4, "top": top}
        return replace(event, effective={**event.effective, "device": "cuda:0", "graph": 1, "launches": launched})
    return event
