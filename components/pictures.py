"""The pictures under the comparison of a race: each a function from a run's result to data that static/ draws."""

from collections.abc import Callable
from typing import Any

from components import code, files, launches, memory_stack, quality, roofline, why

PICTURES: dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]] = {
    "why": why.of,
    "quality": quality.of,
    "roofline": roofline.of,
    "memory_stack": memory_stack.of,
    "launches": launches.of,
    "code": code.of,
    "files": files.of,
}
"""In the order in which they stand on the page; static/pictures.js draws each by the same name."""


def pictures(result: dict[str, Any] | None) -> dict[str, Any]:
    """JSON-ready data of every picture that this result has something to show in."""
    made = {name: make(result) for name, make in PICTURES.items()} if result else {}
    return {name: data for name, data in made.items() if data}
