"""Serve tools for an assistant on standard input and output (Model Context Protocol)."""

import argparse

from engine.commands import OWNER
from engine.refusal import Refusal
from engine.run.jobs import Jobs
from engine.run.store import Store


def add(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults()


def do(parsed: argparse.Namespace) -> int:
    """Until standard input ends."""
    from engine.mcp import Tools, installed

    if not installed():
        raise Refusal("This needs the package mcp.", "Install it: pip install mcp.")
    jobs = Jobs(Store())
    try:
        Tools(jobs, lambda: OWNER).server.run("stdio")
    finally:
        jobs.close()
    return 0
