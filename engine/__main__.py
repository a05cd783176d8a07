"""The command line: python -m engine COMMAND. Never imports gradio."""

import argparse
import sys

from engine.commands import ERR, commands
from engine.refusal import Refusal


def main(arguments: list[str] | None = None) -> int:
    """0 when every lane finished, 1 when one did not, 2 for bad arguments."""
    parsed = parser().parse_args(arguments)
    try:
        return parsed.do(parsed)
    except Refusal as refusal:
        ERR.print(f"{refusal.why} {refusal.hint}".strip(), markup=False, soft_wrap=True)
        return 2


def parser() -> argparse.ArgumentParser:
    """Built from the files of engine/commands."""
    whole = argparse.ArgumentParser(prog="python -m engine", description=__doc__)
    subparsers = whole.add_subparsers(required=True, metavar="COMMAND")
    for name, command in commands().items():
        text = command.__doc__.strip()
        said = text.splitlines()[0].rstrip(".")
        one = subparsers.add_parser(name, help=said[:1].lower() + said[1:], description=text)
        one.set_defaults(do=command.do)
        command.add(one)
    return whole


if __name__ == "__main__":
    sys.exit(main())
