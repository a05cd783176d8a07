"""llama.cpp's 4-bit file against generate and our native step, all lanes in turns within one run."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from engine.backends import Session
from engine.bench.measuring import heading, line
from engine.bench.texts import PROMPT
from engine.event import Event
from engine.measure.machine import machine
from engine.measure.metrics import tpot_ms, ttft_ms
from engine.measure.timeline import Timeline
from engine.models import cache, embedded
from engine.plan import Plan
from engine.refusal import Refusal
from engine.run.pool import Pool
from engine.spec import Lane, Workload, plan_for

PACKAGE = "llama-cpp-python==0.3.36"
CONTEXT = 1024
REST_S = 0.05
"""Between two turns, until the threads of the one before have gone to sleep."""
WRITE = Workload(prompts=(PROMPT,), max_new_tokens=64, chat=False)
READ = Workload(prompts=(" ".join([PROMPT] * 8),), max_new_tokens=2, chat=False)
"""64 tokens in and 64 out; 512 in."""
NATIVE = {"native_step": {}}
DRAFT = {"draft_model": {"model": "trained", "guesses": 3}}
LANES: dict[str, tuple[str, dict[str, Any]]] = {
    "generate float32": ("generate", {}),
    "generate bfloat16": ("generate", {"precision": {"dtype": "bfloat16"}}),
    "native float32": ("transformers", NATIVE),
    "native bfloat16": ("transformers", {**NATIVE, "precision": {"dtype": "bfloat16"}}),
    "native int8": ("transformers", {**NATIVE, "packed_weights": {}}),
    "native int8 x 8": ("transformers", {**NATIVE, "packed_weights": {"inputs": "8"}}),
    "native int8 x 8 + trained draft": (
        "transformers", {**NATIVE, **DRAFT, "packed_weights": {"inputs": "8"}},
    ),
    "native int4": ("transformers", {**NATIVE, "packed_weights": {"kind": "int4"}}),
    "native int4 + trained draft": ("transformers", {**NATIVE, **DRAFT, "packed_weights": {"kind": "int4"}}),
}  # fmt: skip
OTHERS = "llama.cpp Q4_1"
TITLES = ("lane", "writing, tok/s", "against llama.cpp", "against generate float32", "reading 512, tok/s",
          "against llama.cpp", "against generate float32")  # fmt: skip

Turn = Callable[[Workload], tuple[float, float]]
"""Answers a workload; tokens per second of reading the prompt, and of writing."""


class Ours:
    """One lane of ours with its model loaded and warm, in this process."""

    def __init__(self, backend: str, opts: dict[str, Any], model: str):
        lane = Lane(backend=backend, opts=opts)
        self.plan: Plan = plan_for(lane, model, machine())
        self.session: Session = lane.backend.open()
        self.session.prepare(self.plan, WRITE, lambda event: None)

    def ids(self, workload: Workload) -> list[int]:
        return list(self.session.whole(self.plan, workload).prompts[0])

    def __call__(self, workload: Workload) -> tuple[float, float]:
        events: list[Event] = []
        self.session.run(self.plan, workload, events.append)
        seen = Timeline()
        for event in events:
            seen.see(event)
        read = next(iter(seen.requests.values())).prompt_tokens
        return read / ttft_ms(seen) * 1000, 1000 / tpot_ms(seen)


class Theirs:
    """llama.cpp in a process of its own; ended by `close`. Raises Refusal where it is not installed."""

    def __init__(self, ids: dict[Workload, list[int]], threads: int):
        self.ids = ids
        program = Path(__file__).with_name("llamacpp_process.py")
        command = [python(), str(program), str(gguf()), str(CONTEXT), str(threads)]
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)

    def __call__(self, workload: Workload) -> tuple[float, float]:
        asked = {"ids": self.ids[workload], "tokens": workload.max_new_tokens}
        print(json.dumps(asked), file=self.child.stdin, flush=True)
        start, first, *rest = json.loads(self.child.stdout.readline())
        return len(asked["ids"]) / (first - start), len(rest) / (rest[-1] - first)

    def close(self) -> None:
        self.child.stdin.close()
        self.child.wait()


def place() -> Path:
    return cache.folder() / "llamacpp"


def python() -> str:
    """The Python that has llama.cpp: PITLANE_LLAMACPP, or that of an environment in the cache folder."""
    own = place() / "venv"
    found = os.environ.get("PITLANE_LLAMACPP") or str(own / "bin" / "python")
    try:
        subprocess.run([found, "-c", "import llama_cpp"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        raise Refusal(
            f"{found} has no llama.cpp.",
            f"Build it with: python -m venv {own} && {own}/bin/pip install {PACKAGE} (six minutes on two cores).",
        ) from None
    return found


def gguf() -> Path:
    """The embedded model as it was published, in 4 bits."""
    path = place() / embedded.GGUF
    if not path.exists():
        place().mkdir(exist_ok=True)
        embedded.published(place())
    return path


def run(pool: Pool, rounds: int, model: str, only: list[str]) -> dict[str, Any]:
    """Print the table; returns every turn by lane. The embedded model only: llama.cpp has no other one's file."""
    python()
    lanes: dict[str, Turn] = {name: Ours(*how, model) for name, how in LANES.items() if not only or name in only}
    some = next(iter(lanes.values()))
    theirs = lanes[OTHERS] = Theirs({load: some.ids(load) for load in (WRITE, READ)}, torch.get_num_threads())
    try:
        kept = turns(lanes, rounds)
    finally:
        theirs.close()
    print(heading(*TITLES))
    for name in kept:
        print(row(name, kept), flush=True)
    return kept


def turns(lanes: dict[str, Turn], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Tokens per second of each lane in each round; every second round goes backwards, and the first only warms up."""
    kept: dict[str, dict[str, list[float]]] = {name: {"read": [], "write": []} for name in lanes}
    for number in range(rounds + 1):
        for name in list(lanes) if number % 2 else reversed(lanes):
            _, written = lanes[name](WRITE)
            time.sleep(REST_S)
            read, _ = lanes[name](READ)
            time.sleep(REST_S)
            if number:
                kept[name]["read"].append(read)
                kept[name]["write"].append(written)
    return kept


def row(name: str, kept: dict[str, dict[str, list[float]]]) -> str:
    cells = [name]
    for what in ("write", "read"):
        own = kept[name][what]
        cells.append(spread(own, 0))
        for other in (OTHERS, "generate float32"):
            base = kept.get(other, {}).get(what)
            cells.append(spread([a / b for a, b in zip(own, base, strict=True)], 2) if base else "–")
    return line(*cells)


def spread(values: Sequence[float], digits: int) -> str:
    """The median, and the smallest and largest."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
