"""Finds the files of optimizations/ and backends/; imports no torch."""

import pkgutil
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import engine.backends
import engine.labs
import engine.optimizations
from engine.backends import Backend
from engine.labs import Lab
from engine.optimizations import Optimization
from engine.part import Part

GROUPS = ("quantization", "kv cache", "speculation", "parallelism", "fusion", "attention")
"""The families of optimizations in the order in which people meet them."""
ALSO = {"speculation": "speculative decoding"}
"""What a family is called elsewhere, where that is another name."""
LAB_GROUPS = ("loop tiling", "attention", "parallelism")


@cache
def optimizations() -> dict[str, type[Optimization]]:
    """Every optimization by its file's name, in the order of their groups."""
    found = _parts(engine.optimizations, Optimization)
    rank = {group: position for position, group in enumerate(GROUPS)}
    return dict(sorted(found.items(), key=lambda item: (rank[item[1].group], not item[1].always, item[0])))


@cache
def backends() -> dict[str, type[Backend]]:
    """Every backend by its file's name."""
    return _parts(engine.backends, Backend)


@cache
def labs() -> dict[str, type[Lab]]:
    """Every lab by its file's name, the tiles first."""
    found = _parts(engine.labs, Lab)
    return dict(sorted(found.items(), key=lambda item: (LAB_GROUPS.index(item[1].group), item[1].title)))


def _parts(package: ModuleType, base: type[Part]) -> dict[str, Any]:
    parts = {}
    for module in pkgutil.iter_modules(package.__path__):
        members = vars(import_module(f"{package.__name__}.{module.name}")).values()
        parts[module.name] = next(
            part
            for part in members
            if isinstance(part, type)
            and issubclass(part, base)
            and part.__module__ == f"{package.__name__}.{module.name}"
        )
    return parts
