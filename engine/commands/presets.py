"""Experiments that ask a question."""

import argparse

from engine.commands import json_flag, listing
from engine.presets import presets


def add(parser: argparse.ArgumentParser) -> None:
    json_flag(parser)


def do(parsed: argparse.Namespace) -> int:
    rows = [
        {
            "name": name,
            "title": found.title,
            "lanes": len(found.lanes),
            "model": found.model,
            "why": found.why,
        }
        for name, found in presets().items()
    ]
    return listing(parsed, rows if parsed.json else [{k: v for k, v in row.items() if k != "why"} for row in rows])
