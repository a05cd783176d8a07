"""Predicted against measured peak memory across the toggles: what a lane is told before it runs, and what it took.

A case whose name ends in "..." stands for itself and all that follow it: `tests.bench fit "torchao int8..."`.
"""

import sys
import time
from typing import Any

from engine.bench.measuring import DASH, faults, heading, line, measure
from engine.bench.texts import LONG, PROMPT
from engine.measure.estimate import estimate
from engine.measure.machine import machine
from engine.models.architecture import known
from engine.run.pool import Pool
from engine.spec import Experiment, plan_for

SHORT = {"prompts": [PROMPT], "max_new_tokens": 32, "chat": False}
WORDY = {"prompts": [LONG], "max_new_tokens": 16, "chat": False}
SEVERAL = {"prompts": [f"{number}: {PROMPT}" for number in range(8)], "max_new_tokens": 16, "chat": False}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "float32": ({}, SHORT),
    "bfloat16": ({"precision": {"dtype": "bfloat16"}}, SHORT),
    "float32, long": ({}, WORDY),
    "bfloat16, long": ({"precision": {"dtype": "bfloat16"}}, WORDY),
    "eager attention": ({"attention": {"kernel": "eager"}}, WORDY),
    "static cache": ({"kv_cache": {"kind": "static"}}, WORDY),
    "no cache": ({"kv_cache": {"kind": "off"}}, WORDY),
    "quantized cache": ({"kv_quant": {}}, WORDY),
    "window": ({"kv_window": {"window": 128}}, WORDY),
    "batch": ({"batching": {"size": 8}}, SEVERAL),
    "continuous": ({"continuous_batching": {"slots": 8}}, SEVERAL),
    "replicas": ({"replicas": {"count": 2}}, SEVERAL),
    "int8": ({"bitsandbytes": {"kind": "int8"}}, SHORT),
    "nf4": ({"bitsandbytes": {"kind": "nf4"}}, SHORT),
    "nf4, long": ({"bitsandbytes": {"kind": "nf4"}}, WORDY),
    "torchao int8": ({"torchao": {"kind": "int8-weight-only"}}, SHORT),
    "int8, bfloat16": ({"bitsandbytes": {"kind": "int8"}, "precision": {"dtype": "bfloat16"}}, SHORT),
    "nf4, bfloat16": ({"bitsandbytes": {"kind": "nf4"}, "precision": {"dtype": "bfloat16"}}, SHORT),
    "torchao, bfloat16": ({"torchao": {}, "precision": {"dtype": "bfloat16"}}, SHORT),
    "prompt lookup": ({"prompt_lookup": {}}, SHORT),
    "draft model": ({"draft_model": {}}, SHORT),
    "early exit": ({"early_exit": {"layers": 20}}, SHORT),
    "merged": ({"merged_projections": {}}, SHORT),
    "compiled": ({"torch_compile": {}}, SHORT),
    "compiled, bfloat16": ({"torch_compile": {}, "precision": {"dtype": "bfloat16"}}, SHORT),
    "native": ({"native_step": {}}, SHORT),
    "native, long": ({"native_step": {}}, WORDY),
    "native, bfloat16": ({"native_step": {}, "precision": {"dtype": "bfloat16"}}, SHORT),
    "native int8": ({"native_step": {}, "packed_weights": {}}, SHORT),
    "native int4": ({"native_step": {}, "packed_weights": {"kind": "int4"}}, SHORT),
    "native, trained draft": ({"native_step": {}, "draft_model": {"model": "trained"}}, SHORT),
    "native, drafts itself": ({"native_step": {}, "draft_model": {"model": "self"}}, SHORT),
    "native, continuous": ({"native_step": {}, "continuous_batching": {"slots": 8}}, SEVERAL),
}
ROUNDS = 2
"""Memory repeats itself: it does not take eight rounds."""


def run(pool: Pool, rounds: int, model: str, only: list[str]) -> dict[str, Any]:
    """Print the table; returns predicted and measured bytes by case."""
    print(heading("toggle", "predicted, MB", "measured, MB", "error", "took, s", "note"))
    kept: dict[str, Any] = {}
    for name in chosen(only):
        opts, workload = CASES[name]
        began = time.perf_counter()
        data = {"rounds": min(rounds, ROUNDS), "model": model, "workload": workload, "lanes": {"A": {"opts": opts}}}
        kept[name] = found = case(Experiment.read(data), pool)
        error = found["error"]
        sizes = (f"{found[key] / 1e6:.0f}" if found[key] else DASH for key in ("predicted", "measured"))
        spent = f"{time.perf_counter() - began:.0f}"
        print(line(name, *sizes, DASH if error is None else f"{error:+.1%}", spent, found["note"]), flush=True)
    errors = {name: abs(one["error"]) for name, one in kept.items() if one["error"] is not None}
    if errors:
        worst = max(errors, key=errors.get)
        mean = sum(errors.values()) / len(errors)
        print(f"\n{len(errors)} toggles: {mean:.1%} in the mean, {errors[worst]:.1%} at worst ({worst}).")
    return kept


def chosen(only: list[str]) -> list[str]:
    """The names of the cases to run, in their order; ends the program where there is no such case."""
    names, wanted = list(CASES), set()
    for asked in only:
        first = asked.removesuffix("...")
        if first not in names:
            sys.exit(f"There is no case {first}. There are: {'; '.join(names)}.")
        wanted |= set(names[names.index(first) :]) if asked != first else {first}
    return [name for name in names if not only or name in wanted]


def case(experiment: Experiment, pool: Pool) -> dict[str, Any]:
    """One lane, run in a worker that has run nothing else."""
    shape = known(experiment.model)
    plan = plan_for(experiment.lanes["A"], experiment.model, machine(), shape)
    predicted = estimate(plan, shape, experiment.workload)["fit"]
    found = measure(experiment, pool)
    pool.empty()
    measured = found["lanes"][0]["memory"]["peak_bytes"]
    error = predicted["peak"] / measured - 1 if measured else None
    return {
        "predicted": predicted["peak"],
        "measured": measured,
        "error": error,
        "note": faults(found),
        "fit": predicted,
    }
