"""Every optimization alone against the plain loop on the embedded model, three to a row."""

from collections.abc import Iterator
from typing import Any, get_args

from engine.bench.rows import REAL, Row, ours
from engine.bench.texts import PLAIN, WORKLOADS
from engine.optimizations import Optimization
from engine.registry import optimizations

TOGETHER = 3
"""Lanes beside the plain one."""
ROUNDS, TOKENS = 6, 12
SECONDS, COMPILING = 30.0, 100.0
"""What a row takes, and one with what is compiled for a minute."""
DEAR = ("torch_compile", "attention flex", "torchao int8-dynamic")
WITH = {"packed_weights": {"native_step": {}}}
"""What an optimization cannot be without."""
TOO_LONG = {"torch_compile": ("max-autotune",)}
"""Choices that are compiled for minutes."""


def rows() -> Iterator[Row]:
    """One row for every three that are tried on the same workload."""
    kinds: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for name, part in optimizations().items():
        kind = name if name in WORKLOADS else part.group
        kinds.setdefault(kind, []).extend(cases(name, part))
    for kind, found in kinds.items():
        for first in range(0, len(found), TOGETHER):
            some = found[first : first + TOGETHER]
            said = f"SmolLM2-135M, one optimization alone: {', '.join(label for label, _ in some)}"
            lanes = {"plain": ours(), **{label: ours(**opts) for label, opts in some}}
            name = f"alone-{kind.replace(' ', '-').replace('_', '-')}-{first // TOGETHER + 1}"
            workload = WORKLOADS.get(kind, PLAIN)
            few = {**workload, "max_new_tokens": min(TOKENS, workload["max_new_tokens"])}
            seconds = COMPILING if any(label.startswith(DEAR) for label in lanes) else SECONDS
            yield Row(name, said, REAL, lanes, few, ROUNDS, seconds)


def cases(name: str, part: type[Optimization]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A label and the `opts` for each choice of the first knob that has named ones; else as it is by default."""
    knob, field = next(iter(part.model_fields.items()), ("", None))
    choices = [choice for choice in get_args(field.annotation) if isinstance(choice, str)] if field else []
    for choice in choices or [None]:
        usual = part.always and choice in (None, field.default, "dynamic", "sdpa")
        if not usual and choice not in TOO_LONG.get(name, ()):
            knobs = {} if choice is None else {knob: choice}
            yield " ".join(filter(None, (name, choice))), {**WITH.get(name, {}), name: knobs}
