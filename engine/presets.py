"""Presets: questions for a race in presets/*.toml, and for a lab in presets/labs/*.toml."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from engine.labs import Lab
from engine.measure.machine import machine
from engine.refusal import Refusal
from engine.registry import GROUPS, labs
from engine.spec import Experiment, load_toml

SEVERAL, ENGINES = "several together", "engines"
FAMILIES = (*GROUPS, SEVERAL, ENGINES)
"""What a question is about, in the order in which people meet it."""
FOLDER = Path(__file__).resolve().parents[1] / "presets"
LARGER = "cuda"
"""The table of a preset's file that takes the place of what stands above it, where a machine has a GPU of its own."""


@cache
def presets() -> dict[str, Experiment]:
    """Every preset by its file's name, family by family, those without a model last."""
    found = {path.stem: read(path, _large()) for path in sorted(FOLDER.glob("*.toml"))}
    rank = {name: place for place, name in enumerate(FAMILIES)}
    return dict(sorted(found.items(), key=lambda item: (not _real(item[1]), rank[family(item[1])])))


def read(path: Path, larger: bool) -> Experiment:
    """A preset's file: as small as a processor answers in a minute or two, or `larger`, as it says for a GPU.

    Raises Refusal for a file that is not TOML or not an experiment.
    """
    data = load_toml(path)
    more = data.pop(LARGER, {})
    return Experiment.read(_merged(data, more) if larger else data)


def _large() -> bool:
    """A GPU that is lent for seconds is asked the small question."""
    return bool(machine().gpus) and not machine().zero_gpu


def _merged(table: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    both = {name: _merged(table[name], new) for name, new in more.items() if isinstance(table.get(name), dict)}
    return table | more | both


def family(experiment: Experiment) -> str:
    """The family of the optimizations in which the lanes differ; one of FAMILIES."""
    lanes = [lane.in_effect() for lane in experiment.lanes.values()]
    every = {name: part for lane in lanes for name, part in lane.items()}
    groups = {part.group for name, part in every.items() if any(one.get(name) != lanes[0].get(name) for one in lanes)}
    return SEVERAL if len(groups) > 1 else next(iter(groups), ENGINES)


def preset(name: str) -> Experiment:
    """A preset by name, or an experiment from a TOML file. Raises Refusal with what exists."""
    if name in presets():
        return presets()[name]
    path = Path(name)
    if path.suffix == ".toml" and path.is_file():
        return read(path, _large())
    if path.suffix == ".toml":
        raise Refusal(f"There is no file {name}.", "Check the path.")
    raise Refusal(f"There is no preset {name}.", f"There are {', '.join(presets())}, or name a .toml file.")


@dataclass(frozen=True)
class LabPreset:
    """A question that a lab answers, and the lab with the knobs that the question needs."""

    title: str
    why: str
    lab: Lab


@cache
def lab_presets() -> dict[str, LabPreset]:
    """Every question for a lab by its file's name. Raises Refusal for a file that is none."""
    return {path.stem: _lab_preset(path) for path in sorted((FOLDER / "labs").glob("*.toml"))}


def _lab_preset(path: Path) -> LabPreset:
    data = load_toml(path)
    name = data.get("lab")
    if name not in labs() or set(data) - {"title", "why", "lab", "knobs"}:
        raise Refusal(f"{path.name} needs title, why and lab, which is one of {', '.join(labs())}.")
    return LabPreset(data["title"], data["why"], labs()[name].configured(data.get("knobs", {})))


def _real(experiment: Experiment) -> bool:
    return any(lane.backend.needs_model for lane in experiment.lanes.values())
