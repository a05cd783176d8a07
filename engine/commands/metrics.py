"""What is measured: every metric with its unit and definition."""

import argparse

from engine.commands import json_flag, listing
from engine.measure.metrics import METRICS


def add(parser: argparse.ArgumentParser) -> None:
    json_flag(parser)


def do(parsed: argparse.Namespace) -> int:
    rows = [
        {"name": one.name, "title": one.title, "unit": one.unit, "better": one.better, "definition": one.definition}
        for one in METRICS.values()
    ]
    foot = "python -m engine translate RUN --as vllm shows a run under the names of another benchmark."
    return listing(parsed, rows, foot)
