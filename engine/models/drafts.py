"""Drafts that were trained for one model of the catalogue and come with Pitlane: where they lie and what they are."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.models.catalogue import MODELS
from engine.refusal import Refusal

TRAINED = "trained"
"""The name by which a lane asks for the draft that was trained for its model."""
FOLDER = Path(__file__).with_suffix("")
"""One file a model, named after it, with a card of the same name beside it."""
FACTS = "draft"
"""The entry of the file's own metadata that says as JSON what the draft is."""
OTHER = "Choose self or a model's name as the draft, or another kind of guessing."


@dataclass(frozen=True)
class Trained:
    """A draft as its file describes itself.

    `layers` are the numbers of the model's own layers that it began with, `vocabulary` how many tokens it can guess,
    and `facts` all that was written down when it was trained.
    """

    path: Path
    layers: tuple[int, ...]
    vocabulary: int
    facts: dict[str, Any]


def trained(model: str) -> Trained:
    """The draft for a model, by its id, its name on the hub, or a folder's path.

    Raises Refusal where none was trained for it, and where its file is missing or cannot be read.
    """
    known = MODELS.get(model) or next((entry for entry in MODELS.values() if entry.repo == model), None)
    if known is None or not _named(known.id):
        names = ", ".join(name for name in MODELS if _named(name))
        there = f"There is one for {names}." if names else "This copy of Pitlane comes without any."
        raise Refusal(f"No draft was trained for {model}. {there}", OTHER)
    return described(place(known.id))


def place(model: str) -> Path:
    """The file of a model's draft, whether it is there or not."""
    return FOLDER / f"{model}.safetensors"


def described(path: Path) -> Trained:
    """Read what a draft's file says of itself; no weight is read. Raises Refusal if it is no such file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            facts = json.loads(file.metadata()[FACTS])
        return Trained(path, tuple(facts["layers"]), int(facts["vocabulary"]), facts)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        raise Refusal(f"The trained draft {path.name} is damaged or of another kind.", OTHER) from None


def _named(model: str) -> bool:
    return place(model).is_file()
