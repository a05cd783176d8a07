"""Lessons: what is asked, and what there is to learn."""

import argparse
import json
from textwrap import fill
from typing import Any

from engine.commands import OUT, json_flag, listing
from engine.lessons import UNITS, Lesson, lessons
from engine.refusal import Refusal

WIDTH = 100
FOOT = (
    "python -m engine lessons NAME prints one. On the page you guess, a run decides, and your guess is drawn beside it."
)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="print this lesson; without a name they are listed")
    json_flag(parser)


def do(parsed: argparse.Namespace) -> int:
    if not parsed.name:
        return listing(parsed, [_row(name, one) for name, one in lessons().items()], FOOT)
    if parsed.name not in lessons():
        raise Refusal(f"There is no lesson {parsed.name}.", f"There are {', '.join(lessons())}.")
    one = lessons()[parsed.name]
    if parsed.json:
        OUT.print_json(json.dumps(_whole(parsed.name, one)))
    else:
        OUT.print(_text(one), markup=False)
    return 0


def _row(name: str, one: Lesson) -> dict[str, str]:
    return {"name": name, "title": one.title, "family": one.family, "takes": one.time}


def _whole(name: str, one: Lesson) -> dict[str, Any]:
    further = [step.say for step in one.next]
    return {"name": name, **one.shown(), "preset": one.preset, "explanation": one.explanation, "next": further}


def _text(one: Lesson) -> str:
    asked, unit = one.prediction, UNITS[one.prediction.unit]
    answers = ", ".join(asked.choices) or f"a number from {asked.low:g} to {asked.high:g} {unit}"
    paragraphs = [
        f"{one.title} ({one.family}, {one.time} on two cores)",
        fill(one.question, WIDTH),
        f"{fill(asked.ask, WIDTH)}\nYour guess: {answers}.",
        f"Measure it: python -m engine run {one.preset}",
        fill(one.explanation, WIDTH),
        "\n".join(["Try next:", *(fill(step.say, WIDTH, initial_indent="- ") for step in one.next)]),
    ]
    return "\n\n".join(paragraphs)
