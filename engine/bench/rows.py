"""What is measured, row by row and the most important first: the model, the workload and the lanes of each."""

from dataclasses import dataclass
from typing import Any

from engine.bench.texts import BRIEF, PAGES, PROMPT, REPEAT, SEVERAL
from engine.registry import optimizations
from engine.spec import Experiment

Lanes = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Row:
    """One experiment. It takes about `seconds` on a GPU."""

    name: str
    says: str
    model: str
    lanes: Lanes
    workload: dict[str, Any]
    rounds: int = 8
    seconds: float = 45.0
    quality: bool = False

    def experiment(self) -> Experiment:
        """Raises Refusal where a lane has what this version does not know."""
        kept = {name: getattr(self, name) for name in ("model", "lanes", "workload", "rounds", "quality")}
        return Experiment.read({"title": self.says, **kept})


def ours(**opts: Any) -> dict[str, Any]:
    return {"opts": opts}


def generate(**opts: Any) -> dict[str, Any]:
    return {"backend": "generate", "opts": opts}


def packed(kind: str, **opts: Any) -> dict[str, Any]:
    return ours(native_step={}, packed_weights={"kind": kind}, **opts)


def _most() -> int:
    """The largest static batch that a lane may ask for."""
    bounds = optimizations()["batching"].model_fields["size"].metadata
    return next(bound.le for bound in bounds if hasattr(bound, "le"))


MANY, FEW = min(128, _most()), 8
EIGHT, SMALL, REAL = "random:llama-3.1-8b", "random:qwen3-0.6b", "smollm2-135m"
CAPTURED = {"merged_projections": {}, "fused_kernels": {}, "cuda_graph": {}}
NATIVE = {"native_step": {}}
FLOAT32 = {"precision": {"dtype": "float32"}}
GUESSES = {"prompt_lookup": {"guesses": 7}}
SHORT = {"prompts": [PROMPT], "max_new_tokens": 64, "chat": False}
LONGER = {**SHORT, "max_new_tokens": 128}
COPY = {"prompts": [REPEAT], "max_new_tokens": 96}
SUMMARY = {"prompts": [f"Summarise this text in three sentences:\n{PROMPT}"], "max_new_tokens": 96}
PREFILL = {"prompts": [PAGES], "max_new_tokens": 4, "chat": False}


def together(requests: int, tokens: int) -> dict[str, Any]:
    """So many short requests at once."""
    return {"prompts": [BRIEF], "requests": requests, "max_new_tokens": tokens, "chat": False}


def batched(size: int, **opts: Any) -> dict[str, Any]:
    return {"batching": {"size": size}, **opts}


GPU = (
    Row("8b-bf16", "8B shape, bf16, batch 1", EIGHT,
        {"generate": generate(), "captured": ours(**CAPTURED), "native": ours(**NATIVE)}, SHORT, seconds=60),
    Row("8b-packed", "8B shape, fewer bits, batch 1", EIGHT,
        {"native": ours(**NATIVE), "int8": packed("int8"), "int4": packed("int4")}, LONGER),
    Row("0.6b-bf16", "0.6B shape, bf16, batch 1", SMALL,
        {"generate": generate(), "captured": ours(**CAPTURED), "native": ours(**NATIVE)}, SHORT),
    Row("135m-bf16", "SmolLM2-135M, bf16, batch 1: rung by rung", REAL,
        {"generate": generate(), "loop": ours(), "captured": ours(**CAPTURED), "native": ours(**NATIVE)}, SHORT),
    Row("135m-copy", "SmolLM2-135M, bf16, a text to copy", REAL,
        {"native": ours(**NATIVE), "native + lookup": ours(**NATIVE, **GUESSES), "loop + lookup": ours(**GUESSES),
         "generate + lookup": generate(**GUESSES)}, COPY),
    Row("135m-draft", "SmolLM2-135M, bf16, a summary with guesses", REAL,
        {"native": ours(**NATIVE), "itself in 8 bits": ours(**NATIVE, draft_model={"model": "self", "guesses": 3}),
         "trained": ours(**NATIVE, draft_model={"model": "trained", "guesses": 3})}, SUMMARY),
    Row("135m-packed", "SmolLM2-135M, fewer bits", REAL,
        {"native": ours(**NATIVE), "int8": packed("int8"), "int4": packed("int4"),
         "int8 + lookup": packed("int8", **GUESSES)}, COPY, quality=True),
    Row("8b-batch-many", f"8B shape, bf16, {MANY} sequences of 34 + 64 tokens", EIGHT,
        {"generate": generate(**batched(MANY)), "captured": ours(**batched(MANY, **CAPTURED)),
         "native": ours(**batched(MANY, **NATIVE))}, together(MANY, 64), seconds=60),
    Row("8b-batch-long", f"8B shape, bf16, {MANY} sequences of 34 + 2,014 tokens, once", EIGHT,
        {"native": ours(**batched(MANY, **NATIVE))}, together(MANY, 2014), rounds=1),
    Row("8b-prefill", "8B shape, bf16, a prompt of 4,096 tokens", EIGHT,
        {"generate": generate(), "captured": ours(**CAPTURED), "native": ours(**NATIVE)}, PREFILL),
    Row("8b-batch-few", f"8B shape, bf16, {FEW} sequences of 34 + 64 tokens", EIGHT,
        {"generate": generate(**batched(FEW)), "captured": ours(**batched(FEW, **CAPTURED)),
         "native": ours(**batched(FEW, **NATIVE))}, together(FEW, 64)),
    Row("8b-continuous", "8B shape, bf16, 64 requests of unequal length in 32 places", EIGHT,
        {"native, static": ours(**batched(32), **NATIVE),
         "native": ours(continuous_batching={"slots": 32}, **NATIVE),
         "transformers'": generate(continuous_batching={"slots": 32})},
        {**together(64, 64), "spread": 0.8}, rounds=4, seconds=60),
    Row("8b-libraries", "8B shape, fewer bits: ours and the libraries' in generate", EIGHT,
        {"native int4": packed("int4"), "bitsandbytes nf4": generate(bitsandbytes={"kind": "nf4"}),
         "bitsandbytes int8": generate(bitsandbytes={"kind": "int8", "threshold": 0.0}),
         "torchao int8": generate(torchao={"kind": "int8-weight-only"})}, {**SHORT, "max_new_tokens": 24}, seconds=60),
    Row("8b-bitsandbytes", "8B shape, bitsandbytes in generate", EIGHT,
        {"generate": generate(), "nf4": generate(bitsandbytes={"kind": "nf4"}),
         "int8, threshold 6": generate(bitsandbytes={"kind": "int8"}),
         "int8, threshold 0": generate(bitsandbytes={"kind": "int8", "threshold": 0.0})},
        {**SHORT, "max_new_tokens": 32}, rounds=6, seconds=75),
    Row("8b-torchao", "8B shape, torchao in generate", EIGHT,
        {"generate": generate(), "int8": generate(torchao={"kind": "int8-weight-only"}),
         "fp8": generate(torchao={"kind": "fp8-weight-only"}), "int4": generate(torchao={"kind": "int4-weight-only"})},
        {**SHORT, "max_new_tokens": 32}, rounds=6, seconds=75),
    Row("8b-compiled", "8B shape, compiled: our loop (in the manner of gpt-fast), generate with a static cache", EIGHT,
        {"native": ours(**NATIVE), "loop, compiled": ours(torch_compile={}),
         "generate, compiled": generate(torch_compile={})}, SHORT, seconds=150),
    Row("8b-torchao-compiled", "8B shape, torchao, compiled in our loop", EIGHT,
        {"native": ours(**NATIVE), "int8": ours(torchao={"kind": "int8-weight-only"}, torch_compile={}),
         "int4": ours(torchao={"kind": "int4-weight-only"}, torch_compile={})}, SHORT, seconds=150),
    Row("135m-compiled", "SmolLM2-135M, compiled: our loop (in the manner of gpt-fast), generate", REAL,
        {"native": ours(**NATIVE), "loop, compiled": ours(torch_compile={}),
         "generate, compiled": generate(torch_compile={})}, LONGER, seconds=120),
    Row("8b-energy", "8B shape, turns of five seconds and more, for joules a token", EIGHT,
        {"native": ours(**NATIVE), "int8": packed("int8")}, {**SHORT, "max_new_tokens": 2560}, rounds=2),
)  # fmt: skip
CPU = (
    Row("float32", "SmolLM2-135M, float32, batch 1", REAL,
        {"generate": generate(**FLOAT32), "native": ours(**FLOAT32, **NATIVE)}, SHORT),
    Row("packed", "SmolLM2-135M, fewer bits against generate in float32", REAL,
        {"generate": generate(**FLOAT32), "int8": packed("int8", **FLOAT32), "int4": packed("int4", **FLOAT32)}, SHORT),
    Row("batch", f"SmolLM2-135M, float32, {FEW} requests at once", REAL,
        {"generate": generate(**FLOAT32, **batched(FEW)), "loop": ours(**FLOAT32, **batched(FEW))},
        {"prompts": SEVERAL, "max_new_tokens": 24}),
)  # fmt: skip
"""Without a GPU, or without asking for it: a few of them with the embedded model."""
