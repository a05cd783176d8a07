"""The models that Pitlane knows by a short id, with the facts of their architectures."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EMBEDDED, PUBLISHED = "smollm2-135m", "smollm2-135m-gguf"
"""The models that come out of a package: the default one, and the file in 4 bits that it is converted from."""


@dataclass(frozen=True)
class Model:
    """One published model. `parameters` counts tied weights once, `context` is in tokens.

    `architecture` holds the values of the model's config.json, enough to build it with random weights. `draft` is
    the id of a smaller model with the same tokenizer, None where there is none. `comes` is how its weights are
    quantized as they come, such as "gguf"; None where they are plain.
    """

    id: str
    title: str
    repo: str
    parameters: int
    licence: str
    gated: bool
    context: int
    architecture: dict[str, Any] | None
    draft: str | None = None
    comes: str | None = None


def _read() -> dict[str, Model]:
    tables = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    bases = tables.pop("_bases")
    found = {}
    for name, table in tables.items():
        found[name] = _model(name, table, bases)
        bases[name] = found[name].architecture
    return found


def _model(name: str, table: dict[str, Any], bases: dict[str, Any]) -> Model:
    architecture = {**bases[table.pop("base")], **table.pop("architecture", {})}
    context = architecture["max_position_embeddings"]
    return Model(id=name, gated=table.pop("gated", False), context=context, architecture=architecture, **table)


MODELS: dict[str, Model] = _read()
