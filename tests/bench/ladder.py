"""The best of several: combinations against transformers' generate, in one interleaved run each."""

from typing import Any

from engine.bench.measuring import faults, heading, line, measure, middle, ratio
from engine.bench.texts import PROMPT, REPEAT, SEVERAL
from engine.run.pool import Pool
from engine.spec import Experiment

BFLOAT16 = {"precision": {"dtype": "bfloat16"}}
NATIVE = {"native_step": {}}
ITSELF = {"draft_model": {"model": "self", "guesses": 4}}
TRAINED = {"draft_model": {"model": "trained", "guesses": 3}}
AUTOTUNED = {"torch_compile": {"mode": "max-autotune"}}
SHORT = {"prompts": [PROMPT], "max_new_tokens": 64, "chat": False}
COPY = {"prompts": [REPEAT], "max_new_tokens": 64}
EIGHT = {"prompts": SEVERAL, "max_new_tokens": 48}
READ = {"prompts": [" ".join([PROMPT] * 8)], "max_new_tokens": 8, "chat": False}
"""512 tokens to read."""
BATCH = {"batching": {"size": 8}}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "own loop, float32": (SHORT, {}, {}),
    "own loop, bfloat16": (SHORT, BFLOAT16, BFLOAT16),
    "compiled, float32 (lossless)": (SHORT, {}, {"torch_compile": {}}),
    "own weights in bfloat16 as draft, float32 (lossless)": (SHORT, {}, {"draft_model": {"model": "self"}}),
    "prompt lookup, float32, text to copy (lossless)": (COPY, {}, {"prompt_lookup": {"guesses": 10}}),
    "compiled + prompt lookup, float32, text to copy (lossless)": (
        COPY, {}, {"torch_compile": {}, "prompt_lookup": {"guesses": 10}},
    ),
    "compiled, bfloat16": (SHORT, BFLOAT16, {**BFLOAT16, "torch_compile": {}}),
    "compiled, autotuned, bfloat16": (SHORT, BFLOAT16, {**BFLOAT16, **AUTOTUNED}),
    "compiled, autotuned, bfloat16 against float32": (SHORT, {}, {**BFLOAT16, **AUTOTUNED}),
    "compiled, autotuned, bfloat16 + prompt lookup against float32, text to copy": (
        COPY, {}, {**BFLOAT16, **AUTOTUNED, "prompt_lookup": {"guesses": 10}},
    ),
    "native, float32 (lossless)": (SHORT, {}, NATIVE),
    "native, drafts itself, float32 (lossless)": (SHORT, {}, {**NATIVE, **ITSELF}),
    "native, trained draft, float32 (lossless)": (SHORT, {}, {**NATIVE, **TRAINED}),
    "native + prompt lookup, float32, text to copy (lossless)": (
        COPY, {}, {**NATIVE, "prompt_lookup": {"guesses": 10}},
    ),
    "native, bfloat16": (SHORT, BFLOAT16, {**BFLOAT16, **NATIVE}),
    "native, trained draft, bfloat16": (SHORT, BFLOAT16, {**BFLOAT16, **NATIVE, **TRAINED}),
    "native, drafts itself, bfloat16": (SHORT, BFLOAT16, {**BFLOAT16, **NATIVE, **ITSELF}),
    "native, int8 against float32": (SHORT, {}, {**NATIVE, "packed_weights": {}}),
    "native, int8, trained draft against float32": (SHORT, {}, {**NATIVE, **TRAINED, "packed_weights": {}}),
    "native, int8 times 8 bits against float32": (SHORT, {}, {**NATIVE, "packed_weights": {"inputs": "8"}}),
    "native, int8 times 8 bits, trained draft against float32": (
        SHORT, {}, {**NATIVE, **TRAINED, "packed_weights": {"inputs": "8"}},
    ),
    "native, int4 against float32": (SHORT, {}, {**NATIVE, "packed_weights": {"kind": "int4"}}),
    "native, int8 + prompt lookup against float32, text to copy": (
        COPY, {}, {**NATIVE, "packed_weights": {}, "prompt_lookup": {"guesses": 10}},
    ),
    "native, int8 times 8 bits + prompt lookup against float32, text to copy": (
        COPY, {}, {**NATIVE, "packed_weights": {"inputs": "8"}, "prompt_lookup": {"guesses": 10}},
    ),
    "batch 8, native, float32 (lossless)": (EIGHT, BATCH, {**BATCH, **NATIVE}),
    "batch 8, native, bfloat16": (EIGHT, {**BFLOAT16, **BATCH}, {**BFLOAT16, **BATCH, **NATIVE}),
    "batch 8, native, int8 against float32": (EIGHT, BATCH, {**BATCH, **NATIVE, "packed_weights": {}}),
    "a prompt of 512, native, float32 (lossless)": (READ, {}, NATIVE),
    "a prompt of 512, native, bfloat16": (READ, BFLOAT16, {**BFLOAT16, **NATIVE}),
    "a prompt of 512, native, int8 against float32": (READ, {}, {**NATIVE, "packed_weights": {}}),
}  # fmt: skip
"""Name: the workload, what generate has switched on, and what our loop has."""
TITLES = (
    "our loop against generate",
    "TPOT A / B, ms",
    "TPOT ratio",
    "TTFT ratio",
    "tok/s ratio",
    "verdict",
    "compile",
    "same",
    "note",
)


def run(pool: Pool, rounds: int, model: str, only: list[str]) -> dict[str, Any]:
    """Print the table; returns all figures by case."""
    print(heading(*TITLES))
    kept = {}
    for name, (workload, reference, opts) in CASES.items():
        if only and not name.startswith(tuple(only)):
            continue
        lanes = {"A": {"backend": "generate", "opts": reference}, "B": {"opts": opts}}
        data = {"rounds": rounds, "model": model, "workload": workload, "lanes": lanes}
        kept[name] = found = measure(Experiment.read(data), pool)
        print(row(name, found), flush=True)
    return kept


def row(name: str, found: dict[str, Any]) -> str:
    first, second = found["lanes"]
    compiled = second["phases"]["compile_s"]
    word = next((v["word"] for v in found["verdicts"]), "–")
    return line(
        name, f"{middle(first, 'tpot_ms')} / {middle(second, 'tpot_ms')}", ratio(found, "tpot_ms"),
        ratio(found, "ttft_ms"), ratio(found, "output_tok_per_s"), word, f"{compiled:.0f} s" if compiled else "–",
        str(second["equality"]["identical"]), faults(found),
    )  # fmt: skip
