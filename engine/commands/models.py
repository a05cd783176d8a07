"""Models that can be named."""

import argparse

from engine.commands import json_flag, listing
from engine.models.catalogue import MODELS


def add(parser: argparse.ArgumentParser) -> None:
    json_flag(parser)


def do(parsed: argparse.Namespace) -> int:
    rows = [
        {"id": m.id, "title": m.title, "parameters": m.parameters, "licence": m.licence, "gated": m.gated,
         "context": m.context, "repo": m.repo} for m in MODELS.values()
    ]  # fmt: skip
    return listing(parsed, rows, "Also random:ID (random weights, no download), a hub id, or a folder.")
