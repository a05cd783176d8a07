"""The machine measured: figures that a machine can have, kept once, and a run that goes on where that fails."""

import json
import time

import psutil
import pytest

from engine.commands import machine as command
from engine.kernels import native, peaks
from engine.measure import multiplying, probe, reading
from engine.measure.counters import counters
from engine.measure.machine import machine
from engine.measure.roofs import VERSION, best, fingerprint, keep, measured, place
from engine.refusal import Refusal
from engine.run import probing


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder of its own for what is kept."""
    monkeypatch.setenv("PITLANE_HOME", str(tmp_path))
    monkeypatch.setattr(probing, "FAILED", [])
    return tmp_path


def test_a_real_probe_measures_this_machine_and_keeps_it(home, capsys):
    assert measured(machine()) is None and probing.needed()
    found = probing.probe()
    cpu = found["devices"]["cpu"]
    for one in (*cpu["bandwidth"].values(), *(by for rates in cpu["rates"].values() for by in rates.values())):
        assert 0 < one["low"] <= one["median"] <= one["high"] <= one["best"] and one["repeats"] >= reading.READS
    assert 5e8 < cpu["bandwidth"]["1"]["best"] < 5e12, "between a floppy and a wafer"
    assert [size for size, _ in cpu["bandwidth"]["1"]["sizes"]][:2] == [2**24, 2**25]
    assert 1e8 < cpu["rates"]["float32"]["1"]["best"] < 1e14
    assert 1e3 < cpu["small"]["best"] < 1e7 and found["process_bytes"] > 5e7
    assert measured(machine()) == found == machine().to_dict()["measured"] and not probing.needed()
    assert command.do(_asked(json=False)) == 0
    said = capsys.readouterr().out
    assert "cpu: reading, GB/s, 1 thread" in said and "float32, TFLOP/s" in said and "Measured in" in said
    assert "cpu: reading 17 MB again, GB/s" in said


def test_a_damaged_file_counts_as_not_measured(home):
    place(machine()).write_text("{")
    assert measured(machine()) is None
    place(machine()).write_text('{"version": 0}')
    assert measured(machine()) is None
    place(machine()).write_text(json.dumps({"version": VERSION, "devices": {}}))
    assert measured(machine()) is None
    keep(machine(), {"devices": {}, "others": 0.0, "seconds": 8.0})
    assert measured(machine())["devices"] == {}


def test_another_torch_is_another_machine():
    from dataclasses import replace

    here = machine()
    other = replace(here, packages={**here.packages, "torch": "0.1"})
    assert fingerprint(here) != fingerprint(other) and fingerprint(here) == fingerprint(replace(here, compiler=None))


def test_a_probe_that_breaks_is_a_sentence_and_not_tried_again(home, monkeypatch):
    monkeypatch.setattr(probing.sys, "executable", "/bin/false")
    with pytest.raises(Refusal, match="could not be measured") as refused:
        probing.probe()
    assert "--measure" in refused.value.hint
    probing.attempt(lambda: False)
    assert not probing.needed() and list(home.iterdir()) == []


def test_a_probe_that_is_stopped_ends_its_process(home, monkeypatch):
    slow, noted = home / "slow", home / "pid"
    slow.write_text(f"#!/bin/sh\necho $$ > {noted}\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(probing.sys, "executable", str(slow))
    probing.attempt(lambda: noted.exists() and bool(noted.read_text()))
    assert not psutil.pid_exists(int(noted.read_text())) and probing.needed()


def test_a_disturbed_measurement_is_repeated_later_and_the_quieter_one_kept(home, monkeypatch):
    quiet, loud = ({"devices": {}, "others": share, "seconds": 8.0} for share in (0.3, 0.8))
    keep(machine(), {**quiet, "created": time.time()})
    assert not probing.needed()
    keep(machine(), {**quiet, "created": time.time() - 2 * probing.AGAIN_S})
    assert probing.needed()
    monkeypatch.setattr(probing, "_figures", lambda stopped: loud)
    probing.attempt(lambda: False)
    assert measured(machine())["others"] == 0.3 and not probing.needed()
    keep(machine(), {"devices": {}, "others": 0.0, "seconds": 8.0, "created": 0.0})
    assert not probing.needed()


def test_of_two_looks_the_better_figure_of_each_kind_is_kept():
    def look(one: float, other: float, wide: float) -> dict:
        read = {"best": one, "source": "loop", "sizes": [[10, other], [20, one]]}
        return {"others": 0.2, "devices": {"cpu": {"threads": 2, "bandwidth": {"1": read},
                                                   "rates": {"int8": {"1": {"best": wide}}}}}}  # fmt: skip

    found = best(look(4.0, 5.0, 8.0), {**look(3.0, 7.0, 9.0), "others": 0.9})
    assert found["others"] == 0.2 and found["devices"]["cpu"]["threads"] == 2
    assert found["devices"]["cpu"]["bandwidth"]["1"] == {"best": 4.0, "source": "loop", "sizes": [[10, 7.0], [20, 4.0]]}
    assert found["devices"]["cpu"]["rates"]["int8"]["1"]["best"] == 9.0


def test_threads_are_tried_from_one_to_all():
    assert probe.counts(1) == [1]
    assert probe.counts(6) == [1, 2, 4, 6]
    assert probe.counts(8) == [1, 2, 4, 8]


def test_data_is_read_in_growing_sizes_up_to_far_beyond_the_cache():
    assert reading.sizes(32 * 2**20, 2**40) == [2**power for power in range(24, 31)]
    assert reading.sizes(2**30, 2**40)[-1] == 4 * 2**30, "four times a large cache"
    assert reading.sizes(2**30, 2**26)[-1] == 2**26, "what there is room for"


def test_without_a_compiler_torch_reads_and_multiplies(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    native.library.cache_clear()
    monkeypatch.setattr(reading, "READ_S", 0.0)
    monkeypatch.setattr(multiplying, "LASTING_S", 0.0)
    one = reading.processor([1], [2**24, 2**25])["1"]
    assert one["source"] == "torch sum" and len(one["sizes"]) == 2 and one["best"] == one["sizes"][-1][1] > 0
    found = multiplying.processor([1])
    assert found["float32"]["1"]["source"] == "matrix product"


@pytest.mark.parametrize(("kind", "flag"), [("float32", None), ("bfloat16", "avx512_bf16"), ("int8", "avx512_vnni")])
def test_what_stays_in_registers_is_no_slower_than_a_product(kind, flag):
    here = machine()
    if not here.compiler or (flag and flag not in here.instructions) or "amx_int8" in here.instructions:
        return  # torch measures alone, or has units that the loop does not use
    loop, product = multiplying._loop(kind, 1), multiplying._product(kind, "cpu", multiplying._nothing)
    assert loop["best"] > 0.9 * product["best"], "a ceiling that a library breaks is none"
    assert loop["best"] < 20 * product["best"], "and chains that the compiler made one of would be far above it"


def test_reading_reads_every_number_as_often_as_asked():
    import torch

    data = torch.arange(1000, dtype=torch.float32)
    for threads, passes in ((1, 1), (2, 3), (5, 2)):
        assert peaks.read(data, threads, passes) == pytest.approx(499500)
    with pytest.raises(ValueError, match="contiguous float32"):
        peaks.read(data[::2], 1)


def test_energy_meters_that_may_not_be_read_are_not_named(tmp_path):
    for name, text in (("intel-rapl:0", "12345"), ("intel-rapl:1", "")):
        zone = tmp_path / name
        zone.mkdir()
        (zone / "name").write_text(f"package-{name[-1]}\n")
        (zone / "energy_uj").write_text(text)
    assert counters(0, tmp_path) == ("RAPL energy of package-0",)
    assert counters(0, tmp_path / "nowhere") == ()


def test_the_command_says_when_nothing_was_measured(home, capsys):
    assert command.do(_asked(json=False)) == 0
    assert "Not measured yet" in capsys.readouterr().out
    assert command.do(_asked(json=True)) == 0
    assert json.loads(capsys.readouterr().out)["measured"] is None


def _asked(**flags):
    from argparse import Namespace

    return Namespace(measure=False, **flags)
