"""Silent fallbacks to plant: in place of what a lane asks for something else happens, and nothing is said."""

import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from engine.decode import (
    caches,
    continuous,
    drafting,
    drafts,
    generate,
    modules,
    native,
    quantized,
    session,
    speculate,
)
from engine.decode.assisted import OPTIONS
from engine.decode.compiled import compile_step
from engine.decode.stepper import Growing
from engine.models import load, quantize
from engine.plan import Plan


def patched(where: Any, name: str, made: Callable) -> Callable:
    """A sabotage: `made` receives what it takes the place of."""
    return lambda monkeypatch: monkeypatch.setattr(where, name, made(getattr(where, name)))


def copied(folder: Path) -> Path:
    """The same model elsewhere."""
    return Path(shutil.copytree(folder, folder.with_name("another"), dirs_exist_ok=True))


def loaded_as(**changes: Any) -> Callable:
    """The loader does something else than it is asked to, and says nothing."""
    make = load.load_model
    return patched(
        session.load, "load_model", lambda _: lambda s, f, plan, *rest: make(s, f, replace(plan, **changes), *rest)
    )


def quantized_as(**changes: Any) -> Callable:
    """The quantizer takes other settings."""
    return patched(
        quantize, "quantize", lambda real: lambda model, settings, device: real(model, settings | changes, device)
    )


def compiled_as(make: Callable) -> Callable:
    return patched(modules, "compile_step", lambda _: make)


def in_pieces(model: Any, plan: Plan) -> Any:
    """Compiled, but for a call in the middle that the compiler cannot follow."""

    def forward(*given: Any, **named: Any) -> Any:
        out = model.forward(*given, **named)
        torch._dynamo.graph_break()
        out.logits = out.logits + 0
        return out

    return torch.compile(forward, backend="eager", dynamic=False)


def whole(model: Any, plan: Plan) -> Any:
    """In one piece and in no time, with the settings that the real compiler would have taken."""
    step = torch.compile(model.forward, backend="eager", dynamic=False, fullgraph=True)
    step.get_compiler_config = compile_step(model, plan).get_compiler_config
    return step


NOT_QUANTIZED = patched(quantize, "quantize", lambda _: lambda model, settings, device: None)
ONE_LEFT_OUT = patched(quantize, "names", lambda real: lambda model: real(model)[1:])
FULL_CACHE = patched(
    modules.ModuleSession, "_stepper", lambda _: lambda self, plan, batch: Growing(self.model, batch.pad)
)
AS_MATH = patched(session, "allowed", lambda _: lambda plan: sdpa_kernel(SDPBackend.MATH))
PLAINLY = patched(drafting.Drafting, "turn", lambda _: lambda self, plan, stepper, batch, sampling, length, emit:
                  modules.decode(stepper, batch, sampling, emit))  # fmt: skip
EVERY_OTHER_PLAIN = patched(caches, "_packed", lambda real: lambda layer, knobs, count=itertools.count():
                            layer if next(count) % 2 else real(layer, knobs))  # fmt: skip
UNMERGED = patched(modules, "merge_projections", lambda _: lambda model: None)
UNREAD_PREFIX = patched(modules.Prefixes, "read", lambda _: lambda self, batch, emit, stepper, ids: stepper.read(ids))
SHORTER_BEGINNINGS = patched(modules, "Prefixes", lambda real: lambda least: real(least // 2))
ONE_THREAD = patched(torch, "set_num_threads", lambda real: lambda count: real(1))
NO_SLOTS = patched(modules.ModuleSession, "turn", lambda real: lambda self, plan, *rest:
                   real(self, replace(plan, continuous=None), *rest))  # fmt: skip
ONE_BY_ONE = patched(modules.ModuleSession, "serve", lambda real: lambda self, plan, *rest:
                     real(self, replace(plan, continuous=None), *rest))  # fmt: skip
ALL_GUESS = patched(drafting, "Shallow", lambda real: lambda cut, layers, whole, step:
                    real(whole.model, len(whole.cache.layers), whole, step))  # fmt: skip
LARGER_GROUPS = patched(
    caches, "QuantizedLayer", lambda real: lambda keys, values, group: real(keys, values, 2 * group)
)
SMALLER_GROUPS = patched(
    quantized, "Packed", lambda real: lambda bits, group, by_channel: real(bits, group // 2, by_channel)
)
IN_16_BITS = patched(native, "Decoder", lambda real: lambda weights, length, threads, fine, *rest, **named:
                     real(weights, length, threads, True, *rest, **named))  # fmt: skip
ONE_SLOT = patched(continuous, "Slots", lambda real: lambda model, rows, length: real(model, 1, length))
READ_WHOLE = patched(continuous, "Scheduler", lambda real: lambda slots, chunk: real(slots, 1000))
DRAFT_IN_FULL = patched(drafting, "replace", lambda real: lambda plan, **_: plan)
FEWER_GUESSES = patched(drafting, "DraftLength", lambda real: lambda most, adaptive: real(most - 1, adaptive))
NEVER_ADAPTS = patched(drafting, "DraftLength", lambda real: lambda most, adaptive: real(most, False))
WITHOUT_END = patched(speculate.DraftLength, "learn", lambda real: lambda self, drafted, right:
                      setattr(self, "now", self.now + 2))  # fmt: skip
ANOTHER_DRAFT = patched(load, "load_model", lambda real: lambda source, folder, plan, *rest, calls=itertools.count():
                        real(source, copied(folder) if next(calls) else folder, plan, *rest))  # fmt: skip
LONGER_MATCHES = patched(drafts, "Index", lambda real: lambda ngram: real(ngram + 1))

UNPACKED = patched(
    modules.ModuleSession,
    "change",
    lambda change: lambda self, plan, model: change(self, replace(plan, native=False), model),
)
GUESSING = {
    "prompt_lookup": {"guesses": 4}, "early_exit": {"guesses": 4, "layers": 1},
    "draft_model": {"guesses": 4, "model": "self"},
}  # fmt: skip
PLANTS: list[tuple[str, str, dict[str, Any], Callable]] = [
    ("dtype", "bfloat16 loaded as float32", {"precision": {"dtype": "bfloat16"}}, loaded_as(dtype="float32")),
    ("attention", "eager loaded as sdpa", {"attention": {"kernel": "eager"}}, loaded_as(attention="sdpa")),
    ("attention", "flex loaded as sdpa", {"attention": {"kernel": "flex"}}, loaded_as(attention="sdpa")),
    ("sdpa", "flash run as math", {"attention": {"kernel": "flash"}}, AS_MATH),
    ("quantization", "fp8 run as float32", {"torchao": {"kind": "fp8-weight-only"}}, NOT_QUANTIZED),
    ("quantization", "fp8 run as bfloat16",
     {"precision": {"dtype": "bfloat16"}, "torchao": {"kind": "fp8-weight-only"}}, NOT_QUANTIZED),
    ("quantization", "dynamic run as weight-only", {"torchao": {"kind": "int8-dynamic"}},
     quantized_as(kind="int8-weight-only")),
    ("quantization", "int8 not quantized", {"bitsandbytes": {"kind": "int8"}}, NOT_QUANTIZED),
    ("quantization", "nf4 run as fp4", {"bitsandbytes": {"kind": "nf4"}}, quantized_as(kind="fp4")),
    ("quantization", "one layer left out", {"bitsandbytes": {"kind": "int8"}}, ONE_LEFT_OUT),
    ("double_quantization", "scales left alone", {"bitsandbytes": {"double": True}}, quantized_as(double=False)),
    ("outlier_threshold", "threshold ignored", {"bitsandbytes": {"kind": "int8", "threshold": 0.0}},
     quantized_as(threshold=6.0)),
    ("compute_format", "multiplied in float32", {"bitsandbytes": {"compute": "bfloat16"}},
     quantized_as(compute="float32")),
    ("kv", "static run as dynamic", {"kv_cache": {"kind": "static"}}, FULL_CACHE),
    ("kv", "off run with a cache", {"kv_cache": {"kind": "off"}}, FULL_CACHE),
    ("kv_bits", "one of two layers not packed", {"kv_quant": {}}, EVERY_OTHER_PLAIN),
    ("kv_bits", "no layer packed", {"kv_quant": {}}, FULL_CACHE),
    ("kv_group", "groups twice as large", {"kv_quant": {"size": 16}}, LARGER_GROUPS),
    ("kv_group", "keys packed in smaller groups", {"kv_quant": {"size": 16}}, SMALLER_GROUPS),
    ("window", "window ignored", {"kv_window": {}}, FULL_CACHE),
    ("sinks", "first tokens forgotten", {"kv_window": {}}, patched(
        modules, "Windowed", lambda real: lambda model, pad, sinks, window: real(model, pad, 0, window))),
    ("speculation", "lookup ignored", {"prompt_lookup": {}}, PLAINLY),
    ("speculation", "early exit ignored", {"early_exit": {"layers": 1}}, PLAINLY),
    ("speculation.layers", "all layers guess", {"early_exit": {"layers": 1}}, ALL_GUESS),
    ("speculation", "draft ignored", {"draft_model": {"model": "self"}}, PLAINLY),
    *(("speculation.guesses", f"{name} guesses fewer", {name: {**knobs, "adaptive": adaptive}}, FEWER_GUESSES)
      for name, knobs in GUESSING.items() for adaptive in (False, True)),
    ("speculation.guesses", "more and more guesses", {"early_exit": {"guesses": 2, "layers": 1, "adaptive": True}},
     WITHOUT_END),
    ("speculation.guesses", "the native step guesses fewer", {"native_step": {}, "prompt_lookup": {"guesses": 3}},
     FEWER_GUESSES),
    ("speculation.schedule", "never adapts", {"prompt_lookup": {"adaptive": True}}, NEVER_ADAPTS),
    ("speculation.ngram", "longer runs looked up", {"prompt_lookup": {"ngram": 1}}, LONGER_MATCHES),
    ("speculation.draft", "another model guesses", {"draft_model": {"model": "self"}}, ANOTHER_DRAFT),
    ("draft_format", "draft in full width", {"draft_model": {"model": "self"}}, DRAFT_IN_FULL),
    ("continuous", "one after another", {"continuous_batching": {}}, ONE_BY_ONE),
    ("continuous.slots", "one slot for two requests", {"continuous_batching": {}}, ONE_SLOT),
    ("continuous.chunk", "prompts read whole", {"continuous_batching": {"chunk": 16}}, READ_WHOLE),
    ("compiled", "run eagerly", {"torch_compile": {}}, compiled_as(lambda model, plan: model.forward)),
    ("compile_mode", "first kernels taken", {"torch_compile": {"mode": "max-autotune"}},
     compiled_as(lambda model, plan: whole(model, replace(plan, compile="default")))),
    ("compiled", "graph broken in two", {"torch_compile": {}}, compiled_as(in_pieces)),
    ("merged", "not merged", {"merged_projections": {}}, UNMERGED),
    ("native", "modules instead of one call", {"native_step": {}}, UNPACKED),
    ("input_bits", "inputs in 16 bits", {"native_step": {}, "packed_weights": {"inputs": "8"}}, IN_16_BITS),
    ("prefix", "prompts read in full", {"prefix_reuse": {"least": 4}}, UNREAD_PREFIX),
    ("prefix.least", "shorter beginnings copied", {"prefix_reuse": {"least": 8}}, SHORTER_BEGINNINGS),
    ("threads", "threads not set", {"threads": {"count": 2}}, ONE_THREAD),
]  # fmt: skip
"""What is expected, what happens instead, the lane, and the sabotage."""


def pages_with(**changes: int) -> Callable:
    """The library is handed other knobs."""
    return patched(
        generate, "pages", lambda real: lambda model, whole, knobs, *rest: real(model, whole, knobs | changes, *rest)
    )


def told_generate(kind: str, **changes: Any) -> Callable:
    """The library is told other settings of this kind of guessing."""
    real = OPTIONS[kind]
    return lambda monkeypatch: monkeypatch.setitem(OPTIONS, kind, lambda knobs, *models: real(knobs | changes, *models))


IN_GENERATE = {
    "speculation guesses 4": ({"early_exit": {"guesses": 4, "layers": 1}}, told_generate("early_exit", guesses=3)),
    "speculation guesses 3": ({"draft_model": {"guesses": 3, "model": "self"}},
                              told_generate("draft_model", guesses=5)),
    "speculation draft self": ({"draft_model": {"model": "self"}}, ANOTHER_DRAFT),
    "speculation guesses 2": ({"prompt_lookup": {"guesses": 2}}, told_generate("prompt_lookup", guesses=4)),
    "speculation schedule adaptive": ({"early_exit": {"layers": 1, "adaptive": True}},
                                      told_generate("early_exit", adaptive=False)),
    "speculation schedule constant": ({"draft_model": {"model": "self"}}, told_generate("draft_model", adaptive=True)),
    "speculation ngram 2": ({"prompt_lookup": {}}, told_generate("prompt_lookup", ngram=5)),
    "speculation layers 1": ({"early_exit": {"layers": 1}}, lambda monkeypatch: monkeypatch.setitem(
        OPTIONS, "early_exit", lambda *_: {"assistant_early_exit": 2})),
    "continuous chunk 16": ({"continuous_batching": {"chunk": 16}}, pages_with(chunk=64)),
    "continuous slots 2": ({"continuous_batching": {}}, pages_with(slots=1)),
}  # fmt: skip
"""The same inside of transformers' generate, by how the sentence about it begins."""
