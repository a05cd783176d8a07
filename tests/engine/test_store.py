"""The history lists by an index alone, finds words, and survives whatever happens to its file."""

import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from engine.refusal import Refusal
from engine.run.child import ROOT
from engine.run.store import MIGRATIONS, Store
from tests.engine.runs import experiment, filled, keep

RUNS = 12
PAGE = 4096


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A closed history of a dozen runs: one file of some hundred pages."""
    path = tmp_path_factory.mktemp("sound") / "history.db"
    filled(path, RUNS)
    assert path.stat().st_size > 20 * PAGE and not Path(f"{path}-wal").exists()
    return path


def flipped(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 10, 1000))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def header(data: bytearray, draw: random.Random) -> None:
    data[draw.randrange(100)] ^= 1 << draw.randrange(8)


def cut(data: bytearray, draw: random.Random) -> None:
    del data[draw.randrange(len(data)) :]


def zeroed(data: bytearray, draw: random.Random) -> None:
    first = PAGE * draw.randrange(len(data) // PAGE)
    data[first : first + PAGE] = bytes(PAGE)


def scrambled(data: bytearray, draw: random.Random) -> None:
    first = draw.randrange(len(data) - PAGE)
    data[first : first + PAGE] = draw.randbytes(PAGE)


DAMAGES = {damage.__name__: damage for damage in (flipped, header, cut, zeroed, scrambled)}


def read_all(store: Store) -> tuple[int, int]:
    """Look at everything in a history: how many runs are listed, and how many can be read in full."""
    listed, whole = store.history(limit=100), 0
    for row in listed:
        try:
            store.run(row["id"]), store.experiment(row["id"])
            whole += bool(store.records(row["id"]))
        except Refusal as refusal:
            sentences = len(re.findall(r"\.(?=\s|$)", str(refusal)))
            assert (sentences <= 2 and "damaged" in refusal.why) or "no run" in refusal.why, refusal
    return len(store.history(limit=100)), whole


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_file_is_set_aside_and_the_rest_goes_on(kind, seed, sound, tmp_path):
    """A hundred ways. The history opens, what is left of it can be read, and not one byte is thrown away."""
    path, data = tmp_path / "history.db", bytearray(sound.read_bytes())
    DAMAGES[kind](data, random.Random(seed))
    path.write_bytes(data)
    try:
        store = Store(path)
    except Refusal as refusal:  # a flipped version number is that of a newer one
        assert "newer version" in str(refusal) and path.read_bytes() == data
        return
    listed, _ = read_all(store)
    keep(store, "f" * 32, experiment("After the damage"))
    assert len(store.history(limit=100)) == listed + 1
    aside = list(tmp_path.glob("history.damaged-*.db"))
    assert bool(store.notice) == bool(aside)
    if aside:
        assert aside[0].name in store.notice and aside[0].stat().st_size == len(data)
    store.close()


def test_an_experiment_that_lost_a_key_is_told_as_damage(sound, tmp_path):
    """One flipped bit can leave sound JSON with a field of another name."""
    path = tmp_path / "history.db"
    path.write_bytes(sound.read_bytes().replace(b'"lanes": {', b'"lands": {'))
    store = Store(path)
    with pytest.raises(Refusal, match=r"^The record of run \w{8} is damaged or foreign: .*lan.s.*Another version"):
        store.experiment(store.history()[0]["id"])
    store.close()


def test_rows_that_can_be_read_are_saved(sound, tmp_path):
    """Pages of a table's data are lost; whatever lies on other pages is not."""
    path, data = tmp_path / "history.db", bytearray(sound.read_bytes())
    for page in range(len(data) // PAGE // 2, len(data) // PAGE // 2 + 3):
        data[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)
    path.write_bytes(data)
    store = Store(path)
    store._rows("SELECT count(result) FROM runs")
    read_all(store)
    listed, whole = read_all(store)
    assert f"is here: {listed} runs, 0 labs, 0 studies." in store.notice
    assert listed >= RUNS - 4 and whole >= RUNS // 2


def test_two_processes_meet_the_damage_and_both_go_on_in_the_new_file(sound, tmp_path):
    path = tmp_path / "history.db"
    shutil.copy(sound, path)
    first, second = Store(path), Store(path)
    assert first.history() and second.history()
    first.db.close()
    path.write_bytes(b"no database any more" * 1000)
    first.db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    keep(first, "a" * 32, experiment("First"))
    keep(second, "b" * 32, experiment("Second"))
    for store in (first, second):
        assert {row["title"] for row in store.history()} == {"First", "Second"}
    assert first.notice and len(list(tmp_path.glob("history.damaged-*.db"))) == 1


def test_an_import_that_meets_the_damage_goes_into_the_new_file(sound, tmp_path):
    path = tmp_path / "history.db"
    shutil.copy(sound, path)
    store = Store(path)
    listed = store.history()
    run = {key: value for key, value in store.run(listed[0]["id"]).items() if key != "lanes"}
    row = {**run, "id": "a" * 32, "result": None}
    said = store.records(run["id"])
    place = store.db.execute("SELECT rootpage FROM sqlite_master WHERE name='runs_listed'").fetchone()[0]
    store.close()
    data = bytearray(sound.read_bytes())
    data[PAGE * (place - 1) : PAGE * place] = bytes(PAGE)  # what is inserted needs this page of the list's index
    path.write_bytes(data)
    store = Store(path)
    assert not store.notice
    store.take_in(row, said)
    assert "was damaged" in store.notice and len(list(tmp_path.glob("history.damaged-*.db"))) == 1
    assert store.records("a" * 32) == said and len(store.history()) == len(listed) + 1
    with pytest.raises(Refusal, match="in the history already"):
        store.take_in(row, said)
    store.close()


def test_a_lost_log_costs_only_what_was_in_it(tmp_path):
    path = tmp_path / "history.db"
    store = Store(path)
    keep(store, "a" * 32, experiment("Kept"))
    store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    keep(store, "b" * 32, experiment("In the log"))
    copy = tmp_path / "copy" / "history.db"
    copy.parent.mkdir()
    shutil.copy(path, copy)
    assert [row["title"] for row in Store(copy).history()] == ["Kept"]


def test_a_newer_history_is_left_alone_and_the_page_starts_without_it(tmp_path, monkeypatch):
    path = tmp_path / "history.db"
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = path.read_bytes()
    with pytest.raises(Refusal, match="newer version"):
        Store(path)
    monkeypatch.setenv("PITLANE_HOME", str(tmp_path))
    passing = Store.lasting()
    keep(passing, "a" * 32, experiment())
    assert "newer version" in passing.notice and len(passing.history()) == 1
    assert path.read_bytes() == before and passing.gate_file == tmp_path / "machine.lock"


def test_a_folder_in_the_place_of_the_history_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "history.db").mkdir()
    with pytest.raises(Refusal, match="cannot be opened"):
        Store(tmp_path / "history.db")
    monkeypatch.setenv("PITLANE_HOME", str(tmp_path))
    assert "cannot be opened" in Store.lasting().notice and (tmp_path / "history.db").is_dir()


READ_ONLY = """
import os, sys
from pathlib import Path
from engine.refusal import Refusal
from engine.run.store import Store
os.setuid(65534)
try:
    print(len(Store(Path(sys.argv[1])).history()))
except Refusal as refusal:
    print(refusal)
"""


def test_a_history_that_may_not_be_written_is_one_sentence(sound, tmp_path):
    """As another user, since the administrator may write everywhere; as oneself where one is no administrator."""
    path = tmp_path / "history.db"
    shutil.copy(sound, path)
    path.with_suffix(".lock").touch()
    for place, mode in ((path, 0o444), (path.with_suffix(".lock"), 0o666), (tmp_path, 0o555)):
        place.chmod(mode)
    for parent in (*tmp_path.parents[:2],):
        parent.chmod(0o755)
    code = READ_ONLY if os.getuid() == 0 else READ_ONLY.replace("os.setuid(65534)", "")
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True)
    tmp_path.chmod(0o755)
    assert "cannot be opened" in done.stdout and done.stdout.count("\n") == 1, done.stderr
    assert path.read_bytes() == sound.read_bytes()


def test_words_are_found_in_titles_models_lanes_and_sentences(tmp_path):
    store = Store(tmp_path / "history.db")
    keep(store, "a" * 32, experiment("Does 16 bit pay?", opts={"precision": {"dtype": "bfloat16"}}))
    keep(store, "b" * 32, experiment("100 % of it_all", opts={"prompt_lookup": {}}))
    for words, found in (("16 BIT", "a"), ("bfloat16 pay", "a"), ("lookup", "b"), ("0 %", "b"), ("t_a", "b"),
                         ("smollm2", "ba"), ("bbbb", "b"), ("faster than the moon", "")):  # fmt: skip
        assert "".join(row["id"][0] for row in store.history(words=words)) == found, words


def test_the_list_is_read_from_the_index_alone(tmp_path):
    store = Store(tmp_path / "history.db")
    asked: list[str] = []
    store.db.set_trace_callback(asked.append)
    store.history("me", words="a b")
    store.db.set_trace_callback(None)
    plan = " ".join(row["detail"] for row in store.db.execute(f"EXPLAIN QUERY PLAN {asked[-1]}"))
    assert "COVERING INDEX runs_listed" in plan and "TEMP B-TREE" not in plan


@pytest.mark.parametrize("damage", ["{]", "[], []", ""])
def test_a_damaged_column_costs_one_row_its_lanes(damage, tmp_path):
    store = Store(tmp_path / "history.db")
    keep(store, "a" * 32, experiment())
    keep(store, "b" * 32, experiment())
    store.db.execute("UPDATE runs SET lanes=? WHERE id=?", (damage, "a" * 32))
    assert [len(row["lanes"]) for row in store.history()] == [2, 0]


def test_earlier_histories_gain_their_lanes(tmp_path):
    path = tmp_path / "history.db"
    store = Store(path)
    keep(store, "a" * 32, experiment(opts={"prompt_lookup": {}}))
    listed = store.history()
    number = next(n for n, script in enumerate(MIGRATIONS) if "runs_listed" in script)
    store.db.executescript(f"DROP INDEX runs_listed; ALTER TABLE runs DROP COLUMN lanes; PRAGMA user_version={number};"
                           "CREATE INDEX runs_by_owner ON runs (owner, created);")  # fmt: skip
    store.close()
    assert Store(path).history() == listed and listed[0]["lanes"][1]["badges"] == ["prompt lookup 5"]


def test_a_schema_that_is_no_text_is_damage(sound, tmp_path):
    """sqlite's own sentence then quotes bytes that cannot be decoded."""
    path, data = tmp_path / "history.db", sound.read_bytes()
    where = data.index(b"CREATE TABLE runs")
    path.write_bytes(data[:where] + b"CREATE TABLE\xcc\xff( runs"[: len(b"CREATE TABLE runs")] + data[where + 17 :])
    store = Store(path)
    assert "was damaged" in store.notice and list(tmp_path.glob("history.damaged-*.db"))
    store.close()
