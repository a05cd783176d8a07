"""Measure this engine beside what one would use instead: checks, one table, and recordings."""

import argparse
from pathlib import Path

from engine.bench.parts import Bench, chosen
from engine.bench.report import Report
from engine.commands import OUT
from engine.measure.machine import machine
from engine.refusal import Refusal

MINUTES = 8.0


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpu", action="store_true", help="on the GPU; without it a few rows on the processor")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="when to stop (default %(default)g)")
    parser.add_argument("--out", metavar="FOLDER", default="bench", help="for bench.json, bench.md and recordings "
                        "(default %(default)s)")  # fmt: skip
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="parts by the beginnings of their names")


def do(parsed: argparse.Namespace) -> int:
    """0 where every part ran, 1 where one did not."""
    if parsed.gpu and not machine().gpus:
        raise Refusal("This machine has no NVIDIA GPU that torch can use.", "Leave --gpu out for a few rows without.")
    if not parsed.minutes > 0:
        raise Refusal(f"--minutes is {parsed.minutes:g}.", "Give the bench some minutes.")
    report = Report(Path(parsed.out), lambda text: OUT.print(text, markup=False))
    bench = Bench(parsed.gpu, report)
    return 0 if bench.conduct(chosen(list(bench.parts()), parsed.only), parsed.minutes) else 1
