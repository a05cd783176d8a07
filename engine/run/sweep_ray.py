"""A Ray cluster as the place where a sweep's points are measured: one point at a time on each of its machines."""

import socket
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from engine.measure.machine import machine
from engine.measure.result import result
from engine.refusal import Refusal
from engine.run.child import ROOT
from engine.run.pool import Pool
from engine.run.runner import Run
from engine.run.study import FAILED, Outcome, Point, outcome
from engine.spec import Experiment

CONNECT_S = 3.0
ANSWER_S = 8.0
LOOK_S = 0.2
CLIENT = "ray://"
START = "Start Ray there with: ray start --head --port=6379"


class Cluster:
    """Machines that Ray reaches. Each runs the same worker as here, and keeps it warm from point to point.

    A point takes a whole machine, since two at once would measure each other: `width` is the number of machines.
    Raises Refusal where Ray is not installed or nothing answers at `address`, within seconds.
    """

    def __init__(self, address: str):
        reachable(address)
        import ray

        self.ray = ray
        try:
            ray.init(
                address, log_to_driver=False, logging_level="error", runtime_env={"py_modules": [str(ROOT / "engine")]}
            )
        except Exception as error:
            raise Refusal(f"Ray at {address} cannot be used: {_first_line(error)}.", START) from None
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        self.width = len(nodes)
        cores, gpus = (int(min(node.get(kind, 0) for node in nodes)) for kind in ("CPU", "GPU"))
        self.task = ray.remote(num_cpus=cores, num_gpus=gpus, max_retries=0)(measured)

    def measure(self, study: str, point: Point, stopped: Callable[[], bool]) -> Outcome | None:
        """Send one point to whichever machine is free."""
        promise = self.task.remote(point.experiment.to_dict())
        try:
            while not self.ray.wait([promise], timeout=LOOK_S)[0]:
                if stopped():
                    self.ray.cancel(promise, force=True)
                    return None
            return outcome(self.ray.get(promise), None)
        except self.ray.exceptions.RayError as error:
            return Outcome(FAILED, f"Ray lost this point: {_first_line(error)}.")

    def close(self) -> None:
        """Leave the cluster; it goes on without us."""
        self.ray.shutdown()


def measured(experiment: dict[str, Any]) -> dict[str, Any]:
    """What runs on a machine of the cluster: the experiment in that machine's own workers; returns its result."""
    asked = Experiment.read(experiment)
    return result(asked, machine().to_dict(), list(Run(asked, _pool()).records()))


@cache
def _pool() -> Pool:
    """One for each of Ray's processes, which end their workers with them."""
    return Pool()


def reachable(address: str) -> None:
    """Raises Refusal unless something that speaks Ray answers at `address` (HOST:PORT or ray://HOST:PORT)."""
    host, colon, port = address.removeprefix(CLIENT).rpartition(":")
    if not (host and colon and port.isdigit()):
        raise Refusal(f"{address} is no address of a Ray cluster.", "Write HOST:PORT or ray://HOST:PORT.")
    try:
        import ray  # noqa: F401
    except ImportError:
        raise Refusal("Ray is not installed here.", "pip install ray") from None
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise Refusal(f"Nothing answers at {address}: {_first_line(error)}.", START) from None
    if not address.startswith(CLIENT):
        _ask(f"{host}:{port}")


def _ask(address: str) -> None:
    """Ask for its health in a process of its own: Ray itself would wait two minutes, and then end this one."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, check=False)
    except subprocess.TimeoutExpired:
        raise Refusal(f"What answers at {address} is no Ray cluster.", START) from None
    if "Authentication" in asked.stderr:
        raise Refusal(f"The Ray cluster at {address} asks for a token.", "Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN.")
    if asked.returncode:
        raise Refusal(f"What answers at {address} is no healthy Ray cluster.", START)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".")[:200] if lines else type(error).__name__
