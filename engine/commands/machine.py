"""What this machine is."""

import argparse
import json

from engine.commands import OUT, flat, json_flag
from engine.measure.machine import machine


def add(parser: argparse.ArgumentParser) -> None:
    json_flag(parser)


def do(parsed: argparse.Namespace) -> int:
    facts = machine().to_dict()
    if parsed.json:
        OUT.print_json(json.dumps(facts))
    else:
        for name, value in facts.items():
            OUT.print(f"{name:14} {flat(value)}", markup=False)
    return 0
