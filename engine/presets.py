"""Presets: experiments that ask a question, read from presets/*.toml."""

from functools import cache
from pathlib import Path

from engine.refusal import Refusal
from engine.spec import Experiment

FOLDER = Path(__file__).resolve().parents[1] / "presets"


@cache
def presets() -> dict[str, Experiment]:
    """Every preset by its file's name, those without a model last."""
    found = {path.stem: Experiment.from_toml(path) for path in sorted(FOLDER.glob("*.toml"))}
    return dict(sorted(found.items(), key=lambda item: not _real(item[1])))


def preset(name: str) -> Experiment:
    """A preset by name, or an experiment from a TOML file. Raises Refusal with what exists."""
    if name in presets():
        return presets()[name]
    path = Path(name)
    if path.suffix == ".toml" and path.is_file():
        return Experiment.from_toml(path)
    if path.suffix == ".toml":
        raise Refusal(f"There is no file {name}.", "Check the path.")
    raise Refusal(f"There is no preset {name}.", f"There are {', '.join(presets())}, or name a .toml file.")


def _real(experiment: Experiment) -> bool:
    return any(lane.backend.needs_model for lane in experiment.lanes.values())
