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
SECONDS, SLOWLY = 30.0, 100.0
"""What a row takes, and one of those that take long."""
SLOW = ("torch_compile", "attention flex", "torchao int8-dynamic")
"""Compiled for a minute, or slower than two tokens a second."""
WITH = {"packed_weights": {"native_step": {}}}
"""What an optimization cannot be without."""
TOO_LONG = {"torch_compile": ("max-autotune",)}
"""Choices that are compiled for minutes."""

Case = tuple[str, dict[str, Any]]
"""A label, and the optimizations of its lane."""


def rows() -> Iterator[Row]:
    """One row for every three that are tried on the same workload; what takes long comes last, each by itself."""
    kinds: dict[str, list[Case]] = {}
    slow: list[tuple[str, Case]] = []
    for name, part in optimizations().items():
        kind = name if name in WORKLOADS else part.group
        for case in cases(name, part):
            slow.append((kind, case)) if case[0].startswith(SLOW) else kinds.setdefault(kind, []).append(case)
    for kind, found in kinds.items():
        for first in range(0, len(found), TOGETHER):
            yield _row(f"{kind} {first // TOGETHER + 1}", kind, found[first : first + TOGETHER], SECONDS)
    for kind, case in slow:
        yield _row(case[0], kind, [case], SLOWLY)


def _row(name: str, kind: str, found: list[Case], seconds: float) -> Row:
    said = f"SmolLM2-135M, one optimization alone: {', '.join(label for label, _ in found)}"
    lanes = {"plain": ours(), **{label: ours(**opts) for label, opts in found}}
    workload = WORKLOADS.get(kind, PLAIN)
    few = {**workload, "max_new_tokens": min(TOKENS, workload["max_new_tokens"])}
    return Row(f"alone-{name.replace(' ', '-').replace('_', '-')}", said, REAL, lanes, few, ROUNDS, seconds)


def cases(name: str, part: type[Optimization]) -> Iterator[Case]:
    """A label and the `opts` for each choice of the first knob that has named ones; else as it is by default."""
    knob, field = next(iter(part.model_fields.items()), ("", None))
    choices = [choice for choice in get_args(field.annotation) if isinstance(choice, str)] if field else []
    for choice in choices or [None]:
        usual = part.always and choice in (None, field.default, "dynamic", "sdpa")
        if not usual and choice not in TOO_LONG.get(name, ()):
            knobs = {} if choice is None else {knob: choice}
            yield " ".join(filter(None, (name, choice))), {**WITH.get(name, {}), name: knobs}
