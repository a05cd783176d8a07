"""The parts of a bench in their order: checks, ceilings, rows, recordings, and every optimization alone."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from engine.bench import alone, taping
from engine.bench.checks import BROKE, HELD, OPEN
from engine.bench.measuring import until
from engine.bench.report import Report
from engine.bench.rows import CPU, EIGHT, GPU, REAL, SMALL, Row
from engine.bench.sides import Side
from engine.bench.stock import Stock
from engine.bench.table import table
from engine.measure.machine import machine
from engine.measure.result import result
from engine.models.embedded import fetch_embedded
from engine.models.resolve import check_folder
from engine.presets import presets
from engine.refusal import Refusal
from engine.run import probing
from engine.run.child import ROOT
from engine.run.pool import Pool
from engine.run.runner import Run
from engine.spec import Experiment

CHECKS_S = 60.0
MAILBOX_S = 40.0
PERSISTENT_S = 50.0
PROBE_S = 20.0
TAPING_S = 50.0
LARGE = 100e9
"""A GPU of so many bytes holds the workers of two rows; a smaller one only those of one."""
PATIENCE = {"import": 120.0, "fetch": 60.0, "load": 120.0, "quantize": 120.0, "compile": 150.0, "capture": 60.0,
            "warmup": 60.0, "profile": 60.0, "run": 60.0, "quality": 60.0}  # fmt: skip
"""A lane that says nothing for so many seconds is given up, and the others go on."""
TESTS = ROOT / "tests" / "engine"


@dataclass(frozen=True)
class Part:
    """Takes about `seconds`, and is not begun with less than half of that left.

    `do` is told how many it may take at most. What is stopped in the middle keeps the rounds that it has.
    """

    name: str
    says: str
    seconds: float
    do: Callable[[float], None]
    asked: Experiment | None = None


class Bench:
    """On the GPU, or without one on the processor with a few rows. One pool of warm workers serves all parts."""

    def __init__(self, gpu: bool, report: Report):
        self.gpu, self.report, self.stock = gpu, report, Stock()
        self.pool = Pool(PATIENCE, launch=self.stock.launch)
        self.device = "cuda" if gpu else "cpu"
        self.model, self.real = "", _real()

    def parts(self) -> Iterator[Part]:
        yield Part("checks", "Does every rung write the same text?", CHECKS_S, self._checks)
        if files := _gpu_tests() if self.gpu else []:
            yield Part("tests", "Do the kernels' own tests pass here?", CHECKS_S, partial(self._tests, files))
        for name, model in (("mailbox", self.real), ("8b-mailbox", EIGHT)) if self.gpu else ():
            says = f"What does it cost to show tokens while the next ones are computed? ({model})"
            yield Part(name, says, MAILBOX_S, partial(self._mailbox, name, model))
        yield Part("ceilings", "What can this machine do at most?", PROBE_S, self._ceilings)
        yield from map(self._row, GPU if self.gpu else CPU)
        if not self.gpu:
            return
        for name, model in (("135m-persistent", self.real), ("0.6b-persistent", SMALL)):
            says = f"Does a kernel that stays beat a graph of five kernels a layer? ({model})"
            yield Part(name, says, PERSISTENT_S, partial(self._persistent, name, model))
        for name in taping.PRESETS:
            asked = presets()[name]
            yield Part(f"record-{name}", asked.title, TAPING_S, partial(self._tape, name, asked), asked)
        yield from map(self._row, alone.rows())

    def conduct(self, parts: Sequence[Part], minutes: float) -> bool:
        """All parts in turn, see `conduct`. On a GPU, whose host has the cores, workers are started ahead."""
        try:
            if self.gpu:
                self.stock.fill((part.asked for part in parts if part.asked), PATIENCE)
            return conduct(parts, minutes, self.report)
        finally:
            self.stock.close()
            self.pool.close()

    def _checks(self, seconds: float) -> None:
        lines, status = Side(["-m", "engine.bench.checks", self.device, self.real]).end(time.monotonic() + seconds)
        for line in lines:
            if line.startswith('{"name"'):
                self.report.check(json.loads(line))
        if status != 0:
            verdict = OPEN if status is None else BROKE
            self.report.check({"name": "all rungs", "verdict": verdict, "sentence": _last(lines, status)})
        self.report.write()

    def _tests(self, files: list[str], seconds: float) -> None:
        command = ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *files]
        lines, status = Side(command).end(time.monotonic() + seconds)
        verdict = {0: HELD, None: OPEN}.get(status, BROKE)
        self.report.check({"name": "tests on a GPU", "verdict": verdict, "sentence": _last(lines, status)})
        self.report.write()

    def _mailbox(self, name: str, model: str, seconds: float) -> None:
        found = self._aside("mailbox", "mailbox", model, seconds)
        self.report.say(
            f"\n{name}: a step takes {found['with_ms']:.3f} ms with the mailbox and {found['without_ms']:.3f} without, "
            f"{found['ratio']:.4f} times (95 %: {found['half']:.4f} either way; {found['pairs']} pairs: "
            f"{found['least']:.4f} to {found['most']:.4f}). {found['model']}"
        )
        self.report.figure(name, found)

    def _persistent(self, name: str, model: str, seconds: float) -> None:
        found = self._aside("persistent", "persistent step", model, seconds)
        ratio, half = found["ratio"], found["half"]
        first = "The persistent kernel wins" if ratio < 1 else "The graph wins"
        self.report.say(
            f"\n{name}: a step takes {found['persistent_ms']:.3f} ms as one kernel that stays and "
            f"{found['recorded_ms']:.3f} as a graph of kernels, {ratio:.3f} times (95 %: {half:.3f} either way; "
            f"{found['pairs']} pairs: {found['least']:.3f} to {found['most']:.3f}). "
            f"{first if abs(ratio - 1) > half else 'Neither wins'}. The first {found['same']} of {found['steps']} "
            f"tokens are the same, and the first logits {found['off']:.2%} apart. {found['model']}"
        )
        self.report.figure(name, found)

    def _aside(self, program: str, what: str, model: str, seconds: float) -> dict[str, Any]:
        """What a program of this package that takes a model prints in its last line. Raises Refusal where it fails."""
        self.pool.empty()
        lines, status = Side(["-m", f"engine.bench.{program}", model]).end(time.monotonic() + seconds)
        if status != 0:
            raise Refusal(f"The {what} was not measured: {_last(lines, status)}")
        return json.loads(lines[-1])

    def _ceilings(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        self.stock.settle(seconds / 2)
        if not machine().to_dict()["measured"]:
            probing.probe(lambda: time.monotonic() > ends)
        device = machine().to_dict()["measured"]["devices"][self.device]
        read = max(one["best"] for one in device["bandwidth"].values()) / 1e9
        rates = {name: max(one["best"] for one in by.values()) / 1e12 for name, by in device["rates"].items() if by}
        said = ", ".join(f"{name} {rate:,.0f} T/s" for name, rate in rates.items())
        self.report.say(f"\n{machine().summary()}. Reading {read:,.0f} GB/s; products: {said}.")

    def _row(self, row: Row) -> Part:
        asked = row.experiment()
        if asked.model == REAL:
            asked = asked.model_copy(update={"model": self.real})
        if not self.gpu:  # also where there is a GPU that was not asked for
            lanes = {name: lane.model_copy(update={"device": "cpu"}) for name, lane in asked.lanes.items()}
            asked = asked.model_copy(update={"lanes": lanes})
        return Part(row.name, row.says, row.seconds, partial(self._measured, row.name, asked), asked)

    def _tape(self, name: str, asked: Experiment, seconds: float) -> None:
        if self.real != REAL:
            raise Refusal("The embedded model is not here, and a recording of random weights tells nothing.")
        run, records, found = self._measured(f"record-{name}", asked, seconds)
        self.report.say(taping.write(self.report.folder / "recordings", name, run, records, found))

    def _measured(self, name: str, asked: Experiment, seconds: float):
        self._make_room(asked.model)
        run = Run(asked, self.pool)
        records = until(run, seconds, partial(self.report.hear, list(asked.lanes)))
        found = result(asked, machine().to_dict(), records)
        gpu = machine().gpus[0].name if self.gpu else ""
        ended = f", stopped after {seconds:.0f} s" if run.cancelled.is_set() else ""
        self.report.say(f"\n{name}: {asked.title} ({asked.model}{ended})\n\n{table(found, gpu)}")
        self.report.row(name, found)
        return run, records, found

    def _make_room(self, model: str) -> None:
        """Workers of another model are of no use, and a small GPU has no room for those of the row before."""
        if model != self.model or (self.gpu and machine().gpus[0].memory_bytes < LARGE):
            self.pool.empty()
        self.model = model


def _last(lines: list[str], status: int | None) -> str:
    said = next((line.strip() for line in reversed(lines) if line.strip()), "nothing was said")
    return f"out of time after: {said}" if status is None else said


def _real() -> str:
    """The embedded model where it can be had with its weights, else weights drawn at random in its shape."""
    try:
        check_folder(fetch_embedded())
    except Refusal:
        return f"random:{REAL}"
    return REAL


def _gpu_tests() -> list[str]:
    """The files of a checkout that hold tests of kernels on a GPU; none in a copy without tests."""
    return [str(path) for path in sorted(TESTS.glob("test_*.py")) if "mark.gpu" in path.read_text("utf-8")]


def chosen(parts: Sequence[Part], names: Sequence[str]) -> list[Part]:
    """Those whose names begin with one of `names`, in that order; all where none is given.

    Raises Refusal for a name that means none.
    """
    for name in names:
        if not any(part.name.startswith(name) for part in parts):
            raise Refusal(f"No part is called {name}.", f"There are {', '.join(part.name for part in parts)}.")
    asked = {part.name: part for name in names or [""] for part in parts if part.name.startswith(name)}
    return list(asked.values())


def conduct(parts: Sequence[Part], minutes: float, report: Report) -> bool:
    """One after another until the time is over; whether all ran. One that breaks costs only itself."""
    ends, whole = time.monotonic() + 60 * minutes, True
    for part in parts:
        left = ends - time.monotonic()
        if left < part.seconds / 2:
            report.missing(part.name, f"not run: out of time ({left:.0f} s left, about {part.seconds:.0f} s needed)")
            whole = False
            continue
        report.begin(f"{part.name}: {part.says}")
        try:
            part.do(min(left, 2 * part.seconds))
        except Refusal as refusal:
            report.missing(part.name, str(refusal))
            whole = False
        except Exception as error:  # whatever breaks in one part must not cost the others
            report.missing(part.name, f"broke with {type(error).__name__}: {error}")
            whole = False
    return whole
