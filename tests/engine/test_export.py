"""Runs leave and come back: exact as JSON, harmless as CSV, typed as Parquet; a bad file is one sentence."""

import csv
import errno
import io
import json
import os
from pathlib import Path

import pandas
import pytest

from engine.export import FILES, copy, entries, put, tables
from engine.measure.metrics import METRICS
from engine.refusal import Refusal
from engine.run.store import Store
from engine.spec import Experiment
from tests.engine.processes import python
from tests.engine.runs import experiment, keep

RUN, OTHER = "a" * 32, "b" * 32
LIVE = ("=1+1", "+SUM(A1)", "-2", "@cmd", "\tx", "\rx", "\0x", '=HYPERLINK("http://x")', "＝1")
CALM = ("plain", "a=b", " =1", "1-2", 'with "quotes", commas\nand lines', "Grüße 🚀", "")


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path / "history.db")
    keep(store, RUN, experiment("=cmd|' /C calc'!A0", rounds=3, opts={"prompt_lookup": {}}), text='=1+1, "so"\n')
    return store


def rows(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8"), newline="")))


def test_json_comes_back_exact_and_replays(store, tmp_path):
    data = FILES["json"](entries(store, [RUN[:8]]))
    other = Store(tmp_path / "other.db")
    assert copy.take(other, copy.read(data), "somebody") == [RUN]
    before, after = store.run(RUN), other.run(RUN)
    for part in ("experiment", "machine"):
        assert json.loads(after[part]) == json.loads(before[part])
    assert after["result"] == before["result"] and after["created"] == before["created"]
    assert other.records(RUN) == store.records(RUN)
    assert other.experiment(RUN) == store.experiment(RUN) == Experiment.read(after["result"]["experiment"])
    assert other.history()[0]["lanes"] == store.history()[0]["lanes"]
    assert {"processor", "cores", "memory_bytes", "gpus", "python", "packages"} <= set(json.loads(after["machine"]))
    assert FILES["json"](entries(other, [RUN])) == data


def test_a_run_is_imported_once(store):
    runs = copy.read(FILES["json"](entries(store, [RUN])))
    with pytest.raises(Refusal, match="in the history already"):
        copy.take(store, runs, "me")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[: len(data) // 2], "not all of it"),
        (lambda data: b"", "not all of it"),
        (lambda data: data[::-1], "not all of it"),
        (lambda data: b"[" * 100_000, "not all of it"),
        (lambda data: data.replace(b'"lane"', b'"lame"'), "changed or damaged"),
        (lambda data: data.replace(b"pitlane runs", b"something else"), "no export"),
        (lambda data: data.replace(b'"version": 1', b'"version": 2'), "version 2"),
        (lambda data: copy.written([{"id": "x"}]), "not as Pitlane writes it"),
        (lambda data: copy.written([{**copy.read(data)[0], "created": 1e300}]), "not as Pitlane writes it"),
        (lambda data: copy.written([{**copy.read(data)[0], "records": ["{}"]}]), "not as Pitlane writes it"),
        (lambda data: copy.written([{**copy.read(data)[0], "experiment": {"wheels": 4}}]), "does not know"),
    ],
)
def test_a_bad_export_is_one_sentence_and_nothing_is_taken(damage, says, store, tmp_path):
    data = damage(FILES["json"](entries(store, [RUN])))
    other = Store(tmp_path / "other.db")
    with pytest.raises(Refusal, match=says):
        copy.take(other, copy.read(data), "me")
    assert other.history() == []


def test_rounds_hold_every_metric_with_numbers_as_numbers(store):
    found = rows(FILES["rounds.csv"](entries(store, [RUN])))
    result = store.run(RUN)["result"]
    assert len(found) == sum(len(lane["rounds"]) for lane in result["lanes"]) == 6
    for row, turn in zip(found, [turn for lane in result["lanes"] for turn in lane["rounds"]], strict=True):
        for name in METRICS:
            assert (row[name] == "") if turn.get(name) is None else (float(row[name]) == turn[name]), name
    assert json.loads(found[3]["setup"])["opts"] == {
        "prompt_lookup": result["lanes"][1]["lane"]["opts"]["prompt_lookup"]
    }


def test_steps_hold_every_token_and_when_it_came(store):
    found = rows(FILES["steps.csv"](entries(store, [RUN])))
    assert len(found) == 2 * 3 * 8
    assert [float(row["t_s"]) for row in found[:3]] == pytest.approx([0.01, 0.02, 0.03])
    assert [row["token_ids"] for row in found[:3]] == ["0", "1", "2"] and found[0]["lane"] == "A"


@pytest.mark.parametrize("text", LIVE)
def test_text_that_begins_like_a_formula_is_led_by_an_apostrophe(text, store):
    assert tables.safe(text) == f"'{text}"


def test_no_cell_of_a_csv_is_a_formula(store):
    for name in ("rounds.csv", "steps.csv"):
        for row in rows(FILES[name](entries(store, [RUN]))):
            assert not [cell for cell in row.values() if cell.startswith(tables.LIVE) and not _number(cell)], row
    assert rows(FILES["steps.csv"](entries(store, [RUN])))[0]["text"] == '\'=1+1, "so"\n'


def _number(cell: str) -> bool:
    try:
        return float(cell) < float("inf")
    except ValueError:
        return False


def test_other_text_and_numbers_are_left_as_they_are():
    assert [tables.safe(cell) for cell in (*CALM, -2, -0.5, None, True)] == [*CALM, -2, -0.5, None, True]


def test_parquet_is_typed_and_keeps_text_as_it_was(store):
    found = pandas.read_parquet(io.BytesIO(FILES["steps.parquet"](entries(store, [RUN]))))
    assert found["t_s"].dtype == "float64" and found["round"].dtype == "int64"
    assert found["text"][0] == '=1+1, "so"\n'
    rounds = pandas.read_parquet(io.BytesIO(FILES["rounds.parquet"](entries(store, [RUN]))))
    assert rounds["title"][0].startswith("=cmd") and rounds["tpot_ms"].dtype == "float64"


def test_half_a_character_does_not_stop_a_table(tmp_path):
    store = Store(tmp_path / "h.db")
    keep(store, RUN, experiment(), text="half \ud83d")
    for make in FILES.values():
        assert make(entries(store, [RUN]))


def test_a_full_disk_leaves_no_half_file_and_the_old_one_whole(tmp_path, monkeypatch):
    """A limit on the size of files stands in for the disk: the system refuses the write itself."""
    path = tmp_path / "out.json"
    put(path, b"the old one")
    code = (
        "import resource, signal, sys; from pathlib import Path; from engine.export import put\n"
        "from engine.refusal import Refusal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: put(Path(sys.argv[1]), bytes(5000))\n"
        "except Refusal as refusal: print(refusal)"
    )
    done = python("-c", code, str(path))
    assert "cannot be written" in done.stdout and os.strerror(errno.EFBIG) in done.stdout, done.stderr
    assert path.read_bytes() == b"the old one" and os.listdir(tmp_path) == ["out.json"]


def test_the_command_line_exports_and_imports(store, tmp_path):
    home = {"PITLANE_HOME": str(tmp_path)}
    store.close()
    for end, more in ((".csv", [".steps.csv"]), (".parquet", [".steps.parquet"]), (".json", []), (".html", [])):
        done = python("-m", "engine", "export", RUN[:6], "--to", str(tmp_path / f"out{end}"), **home)
        assert done.returncode == 0, done.stderr
        for name in (end, *more):
            assert Path(tmp_path / f"out{name}").stat().st_size > 500
    again = python("-m", "engine", "import", str(tmp_path / "out.json"), PITLANE_HOME=str(tmp_path / "other"))
    assert again.returncode == 0 and RUN[:8] in again.stderr
    for arguments, says in (
        (("export", "nope", "--to", "x.csv"), "There is no run nope"),
        (("export", RUN, "--to", "x.doc"), "no known ending"),
        (("export", RUN, "--to", "/no/such/folder/x.csv"), "cannot be written"),
        (("import", str(tmp_path / "out.csv")), "no export of Pitlane"),
        (("import", "/no/such/file.json"), "cannot be read"),
    ):
        done = python("-m", "engine", *arguments, **home)
        assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr, done.stderr
