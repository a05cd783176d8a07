"""Print a lane as code that runs without Pitlane."""

import argparse

from engine.address import assign
from engine.code import FORMS, code
from engine.commands import OUT, assignments
from engine.presets import preset
from engine.spec import Experiment


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", help="a name from presets/, or a TOML file")
    parser.add_argument("--lane", help="which lane; the first one if not named")
    parser.add_argument("--for", choices=FORMS, default="transformers", dest="form",
                        help="a Python script, or the nearest command that starts a vLLM server")  # fmt: skip
    assignments(parser, "ADDRESS", "workload.max_new_tokens=128")


def do(parsed: argparse.Namespace) -> int:
    """Print the code and nothing else, so that it can be sent into a file."""
    experiment = Experiment.read(assign(preset(parsed.preset).to_dict(), parsed.assignments))
    lane = parsed.lane or next(iter(experiment.lanes))
    OUT.out(code(experiment, lane, parsed.form).text, highlight=False, end="")
    return 0
