"""Discretion: what no log and no link tells of this machine, which is where its folders are."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from engine.home import home
from engine.spec import Experiment

LOCAL = ("/", "~", ".")
"""How the name of a model begins that is a folder."""


def nameless(experiment: Experiment) -> Experiment:
    """The same with models in folders called by the folder's name alone; whoever has such a folder may run it."""
    return Experiment.read(_named(experiment.to_dict()))


def discreet(experiment: Experiment) -> Callable[[str], str]:
    """What takes the folders of this machine out of JSON about a run of this experiment."""
    models = [*_folders(experiment.to_dict())]
    known = dict.fromkeys(_roots(Path(path).parent for model in models for path, _ in _places(model)), "…")
    known |= {_quoted(path): _quoted(name) for model in models for path, name in _places(model)}
    longest_first = sorted(known, key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w/.-])({'|'.join(map(re.escape, longest_first))})(?![\w-])")
    return lambda text: pattern.sub(lambda found: known[found[1]], text)


def _folders(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _folders(inner, name)
    elif key == "model" and isinstance(value, str) and value.strip().startswith(LOCAL):
        yield value


def _named(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _named(inner, name) for name, inner in value.items()}
    return f"./{_name(value)}" if [*_folders(value, key)] else value


def _name(model: str) -> str:
    return Path(model.strip()).expanduser().resolve().name or "model"


def _places(model: str) -> Iterator[tuple[str, str]]:
    """A folder as it was named and where it really lies."""
    path = Path(model.strip()).expanduser()
    for place in {model.strip(), str(path), str(path.absolute()), str(path.resolve())}:
        if place.startswith(("/", "~")):
            yield place.rstrip("/"), _name(model)


def _roots(further: Iterable[Path]) -> Iterator[str]:
    """Folders whose names say who runs this server and where; one without a name, which is /, is none."""
    cache = Path(os.environ.get("HF_HOME", Path.home()))
    for root in (home(), Path.home(), cache, Path(sys.prefix), Path(__file__).parents[1], *further):
        if root.absolute().name:
            yield str(root.absolute())


def _quoted(text: str) -> str:
    """As it stands within a string of the log."""
    return json.dumps(text, ensure_ascii=False)[1:-1].replace("<", "\\u003c")
