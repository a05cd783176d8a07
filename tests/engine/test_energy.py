"""Energy and cost: counters that wrap, turns that are too short, prices that are known, set, or unknown."""

from datetime import date

import pytest

from engine.event import Power
from engine.measure.energy import Meter, energy, joules, zones
from engine.measure.prices import YOURS, cost, listed, table

CPU = {"gpus": [], "cores": 2}
H100 = {"gpus": [{"name": "NVIDIA H100 80GB HBM3"}], "cores": 16}
UNKNOWN = {"gpus": [{"name": "NVIDIA Quadro K6000"}], "cores": 16}


def lane(device: str, **more) -> dict:
    return {"effective": {"plan": {"device": device, "replicas": 1, "tensor_parallel": 1, **more}}}


@pytest.fixture
def powercap(tmp_path):
    """Two packages, one of them with cores and memory of its own, and the platform around them."""
    for name, (kind, counter) in {
        "intel-rapl:0": ("package-0", 1_000_000), "intel-rapl:0:0": ("core", 400_000),
        "intel-rapl:0:1": ("dram", 50_000), "intel-rapl:1": ("package-1", 9_900_000), "intel-rapl:2": ("psys", 7),
    }.items():  # fmt: skip
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(f"{kind}\n")
        (tmp_path / name / "energy_uj").write_text(f"{counter}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("10000000\n")
    return tmp_path


def test_packages_and_memory_are_added_and_a_counter_that_wrapped_goes_on(powercap):
    assert [zone.path.name for zone in zones(powercap)] == ["intel-rapl:0", "intel-rapl:0:1", "intel-rapl:1"]
    meter = Meter(root=powercap)
    for name, counter in {"intel-rapl:0": 3_000_000, "intel-rapl:0:1": 60_000, "intel-rapl:1": 400_000}.items():
        (powercap / name / "energy_uj").write_text(str(counter))
    (power,) = meter.end()
    assert power.joules == pytest.approx(2.0 + 0.01 + 0.5) and power.source == "RAPL" and power.seconds > 0


def test_a_package_that_can_no_longer_be_read_leaves_all_out(powercap):
    meter = Meter(root=powercap)
    (powercap / "intel-rapl:1" / "energy_uj").unlink()
    assert meter.end() == []


def test_where_nothing_counts_nothing_is_said(tmp_path):
    assert Meter(root=tmp_path).end() == []
    found = energy([([], 100)])
    assert found["joules_per_token"] is None and "no energy counter" in found["why"]


def test_energy_is_for_each_output_token_of_a_turn_that_is_long_enough():
    turns = [([Power(9.0, 1200.0, 6.0, "NVML GPU-1")], 400), ([Power(9.0, 1000.0, 5.0, "NVML GPU-1")], 400)]
    found = energy(turns)
    assert found == {
        "joules_per_token": pytest.approx(2.75),
        "watts": pytest.approx(200),
        "source": "NVML",
        "why": None,
    }
    short = energy([([Power(9.0, 100.0, 0.5, "RAPL")], 40)])
    assert short["joules_per_token"] is None and "5 s" in short["why"]


def test_two_gpus_are_added_and_one_that_two_processes_read_is_not():
    assert joules([Power(1.0, 10.0, 5.0, "NVML a"), Power(1.0, 20.0, 5.0, "NVML b")]) == 30.0
    assert joules([Power(1.0, 10.0, 5.0, "NVML a"), Power(1.1, 11.0, 5.1, "NVML a")]) == 11.0


def test_a_million_tokens_cost_the_price_of_their_time():
    """By hand: 2 dollars an hour at 100 tokens a second are 2 / 3600 / 100 * 1e6 = 5.5556 dollars."""
    found = cost(2.0, CPU, lane("cpu"), 100.0)
    assert found["per_million_tokens"] == pytest.approx(5.5556, abs=1e-4) and found["source"] == YOURS


def test_the_default_is_the_list_price_of_what_the_lane_uses():
    assert cost(0.0, CPU, lane("cpu"), 10.0)["price_per_hour"] == pytest.approx(2 * 0.033)
    one, two = (cost(0.0, H100, lane("cuda", replicas=n), 10.0)["price_per_hour"] for n in (1, 2))
    assert two == 2 * one == 2 * listed("cuda", "NVIDIA H100 80GB HBM3", 1).usd


@pytest.mark.parametrize(
    ("name", "usd"),
    [("NVIDIA L4", 0.8), ("NVIDIA L40S", 1.09), ("NVIDIA H100 PCIe", 2.89), ("NVIDIA A100-SXM4-40GB", 1.99),
     ("NVIDIA A100-SXM4-80GB", 1.79), ("Tesla T4", 0.4), ("NVIDIA GeForce RTX 4090", 0.74)],
)  # fmt: skip
def test_a_gpu_is_found_by_its_name(name, usd):
    assert listed("cuda", name, 1).usd == usd


def test_an_unknown_price_or_speed_is_unknown():
    assert cost(0.0, UNKNOWN, lane("cuda"), 10.0)["per_million_tokens"] is None
    assert cost(0.0, CPU, lane("cpu"), None)["per_million_tokens"] is None
    assert cost(3.0, CPU, {"effective": {"simulated": True}}, 10.0)["per_million_tokens"] is None


def test_every_price_names_its_source_and_its_day():
    for row in table():
        assert row["usd"] > 0 and len(row["source"]) > 10 and isinstance(row["date"], date)
