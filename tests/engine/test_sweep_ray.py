"""A sweep on a real Ray cluster of one machine, and addresses where there is none."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from engine.__main__ import main
from engine.refusal import Refusal
from engine.run.sweep_ray import Cluster, reachable

pytest.importorskip("ray", reason="Ray is not installed.")


@pytest.fixture
def cluster(monkeypatch):
    """A head node in a process of its own, which is asked to end at the end; no other Ray is touched."""
    for name, value in (("RAY_AUTH_MODE", "disabled"), ("RAY_USAGE_STATS_ENABLED", "0")):
        monkeypatch.setenv(name, value)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # Ray's sockets need a short path
    command = ["ray.scripts.scripts", "start", "--head", "--block", f"--port={port}", "--num-cpus=2",
               "--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}"]  # fmt: skip
    head = subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        try:
            reachable(f"127.0.0.1:{port}")
            break
        except Refusal:
            assert head.poll() is None
            time.sleep(0.5)
    yield f"127.0.0.1:{port}"
    head.send_signal(signal.SIGTERM)
    head.wait(timeout=40)
    shutil.rmtree(folder, ignore_errors=True)


def test_points_are_measured_on_the_cluster(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("PITLANE_HOME", str(tmp_path))
    asked = ["sweep", "demo-without-a-model", "--lane", "B", "--rounds", "1", "--set", "workload.max_new_tokens=5"]
    asked += ["--set", "lane.backend.at=1"]
    over = ["--over", "lane.backend.tpot_ms=1,200", "--over", "lane.backend.fault=none,kill"]
    code = main([*asked, *over, "--ray", cluster, "--json", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    assert code == 0 and found["state"] == "finished"
    states = {mark["label"]: (mark["state"], mark["figures"].get("tpot_ms")) for mark in found["marks"]}
    assert states["tpot ms 1, fault none"][1] < states["tpot ms 200, fault none"][1]
    assert states["tpot ms 1, fault kill"] == states["tpot ms 200, fault kill"] == ("failed", None)


def test_an_address_where_nothing_answers_is_a_sentence_within_seconds(capsys):
    began = time.monotonic()
    asked = ["sweep", "demo-without-a-model", "--over", "lane.backend.tpot_ms=1,2", "--ray"]
    assert main([*asked, "127.0.0.1:1"]) == 2
    assert "Nothing answers at 127.0.0.1:1" in capsys.readouterr().err
    assert time.monotonic() - began < 15


def test_what_is_no_ray_cluster_is_a_sentence_too():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        threading.Thread(target=lambda: [server.accept()[0] for _ in range(9)], daemon=True).start()
        with pytest.raises(Refusal, match="no Ray cluster"):
            Cluster(f"127.0.0.1:{port}")
    for wrong in ("", "nonsense", "host:port", ":6379", "ray://"):
        with pytest.raises(Refusal, match="no address"):
            Cluster(wrong)
