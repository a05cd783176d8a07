"""The nearest `vllm serve` command to a lane, and what it cannot express."""

import json
import shlex
from typing import Any

from engine.code.form import Code, commented, one_line
from engine.models.drafts import TRAINED
from engine.models.resolve import RANDOM, resolve
from engine.plan import Plan
from engine.spec import Workload

Flags = dict[str, Any]
"""Flags by name: True is a switch, a dict is passed as JSON."""


def vllm(plan: Plan, workload: Workload, title: str = "", lane: str = "") -> Code:
    """The lane as a server. Source: docs.vllm.ai, engine arguments."""
    flags: Flags = {"dtype": plan.dtype}
    beyond: list[str] = []
    for part in PARTS:
        part(plan, workload, flags, beyond)
    source = resolve(plan.model)
    repo = source.repo or (source.model.repo if source.model else str(source.path))
    what = f"Lane {one_line(lane)}" + (f" of {one_line(title)}" if title else "")
    lines = [
        f"# {what}, as the nearest vLLM server.",
        *commented(beyond, "What vLLM cannot say, or says otherwise:"),
        " \\\n    ".join([f"vllm serve {shlex.quote(repo)}", *(_flag(name, value) for name, value in flags.items())]),
    ]
    return Code("\n".join(lines) + "\n", tuple(beyond))


def _flag(name: str, value: Any) -> str:
    if value is True:
        return f"--{name}"
    return f"--{name} {shlex.quote(json.dumps(value) if isinstance(value, dict) else str(value))}"


def _model(plan: Plan, workload: Workload, flags: Flags, beyond: list[str]) -> None:
    if plan.model.startswith(RANDOM):
        flags["load-format"] = "dummy"
        beyond.append("Random weights: vLLM draws its own, so the text is another one.")
    elif resolve(plan.model).kind == "embedded":
        beyond.append(
            "The model that Pitlane brings was once stored in 4 bits: the hub's original writes another text."
        )
    elif resolve(plan.model).kind == "published":
        beyond.append("The weights are a GGUF file: vLLM serves one by its path, so fetch it and name that.")
    if plan.device == "cpu":
        beyond.append("vLLM runs on a processor only in its CPU build, with kernels of its own.")


def _quantization(plan: Plan, workload: Workload, flags: Flags, beyond: list[str]) -> None:
    if not plan.quantization:
        return
    kind = plan.quantization["kind"]
    flags |= {"quantization": QUANTIZED[kind]} if kind in QUANTIZED else {}
    if sentence := NEAREST.get(kind):
        beyond.append(sentence)


QUANTIZED = {"nf4": "bitsandbytes", "fp8-dynamic": "fp8_per_tensor", "fp8-weight-only": "fp8_per_tensor"}
"""What vLLM can do to plain weights while it loads them. Source: its pages on bitsandbytes and online quantization."""
SAVED = "vLLM does not quantize to {} while loading: save a checkpoint in that format and serve it instead."
NEAREST = {
    "fp4": SAVED.format("fp4"),
    "int8": "bitsandbytes quantizes to 4 bits only while vLLM loads: save an 8-bit checkpoint and serve it instead.",
    "int8-weight-only": SAVED.format("int8"),
    "int8-dynamic": SAVED.format("int8"),
    "int4-weight-only": SAVED.format("int4"),
    "fp8-dynamic": "fp8 has one scale for a whole matrix here, not one for a row.",
    "fp8-weight-only": "vLLM rounds the activations to fp8 as well.",
}


def _cache(plan: Plan, workload: Workload, flags: Flags, beyond: list[str]) -> None:
    flags["enable-prefix-caching" if plan.prefix else "no-enable-prefix-caching"] = True
    if plan.kv_bits:
        flags["kv-cache-dtype"] = "fp8"
        beyond.append("Keys and values in groups of integers: fp8 is the narrowest that vLLM has.")
    said = (
        (plan.cache == "off", "Without a KV cache: vLLM always keeps keys and values."),
        (plan.window, "A sliding window with attention sinks over a model that was trained without one."),
        (plan.offload, "Keys and values on the host between the layers: vLLM moves whole requests instead."),
    )
    beyond += [sentence for on, sentence in said if on]


def _scheduling(plan: Plan, workload: Workload, flags: Flags, beyond: list[str]) -> None:
    """vLLM always batches continuously: a lane's batch is the most requests at a time."""
    slots = plan.continuous["slots"] if plan.continuous else plan.batch
    flags["max-num-seqs"] = slots
    if plan.continuous:
        flags["max-num-batched-tokens"] = max(slots, plan.continuous["chunk"] + slots)
    elif plan.batch > 1:
        beyond.append("A static batch: vLLM fills a free place at once.")


def _speculation(plan: Plan, workload: Workload, flags: Flags, beyond: list[str]) -> None:
    if not plan.speculation:
        return
    config = GUESSING[plan.speculation["kind"]](plan)
    if config and plan.draft and plan.draft["dtype"] != plan.dtype:
        beyond.append(f"A draft in {plan.draft['dtype']}: vLLM loads it in the number format of the model.")
    if config and plan.draft and plan.draft.get("packed"):
        beyond.append(f"A draft in {plan.draft['packed']['kind']}: vLLM loads the model a second time as it is.")
    if config:
        flags["speculative-config"] = {"num_speculative_tokens": plan.speculation["guesses"], **config}
    elif plan.draft:
        beyond.append("The trained draft: vLLM takes whole models as drafts, and this one is a part of one.")
    else:
        beyond.append("Early exit: vLLM does not guess with a model's own first layers.")
    if plan.speculation["adaptive"]:
        beyond.append("An adaptive number of guesses.")


def _lookup(plan: Plan) -> dict[str, Any]:
    return {"method": "ngram", "prompt_lookup_min": 1, "prompt_lookup_max": plan.speculation["ngram"]}


def _second(plan: Plan) -> dict[str, Any] | None:
    if plan.draft["model"] == TRAINED:
        return None
    source = resolve(plan.draft["model"])
    kind = (plan.draft["quantization"] or {}).get("kind")
    own = {"quantization": QUANTIZED[kind]} if kind in QUANTIZED else {}
    return {"method": "draft_model", "model": source.repo or str(source.path), **own}


GUESSING = {"prompt_lookup": _lookup, "draft_model": _second, "early_exit": lambda plan: None}


def _execution(plan: Plan, workload: Workload, flags: Flags, beyond: list[str]) -> None:
    if not (plan.compile or plan.graph):
        flags["enforce-eager"] = True
    elif plan.graph:
        flags["compilation-config"] = {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}
    if plan.attention in ATTENTION:
        flags["attention-backend"] = ATTENTION[plan.attention]
    if plan.tensor_parallel > 1:
        flags["tensor-parallel-size"] = plan.tensor_parallel
    if plan.replicas > 1:
        flags["data-parallel-size"] = plan.replicas
    said = (
        (plan.attention not in ("sdpa", *ATTENTION) or plan.sdpa, "The choice of torch's own attention operator."),
        (plan.native, "The native step: vLLM has kernels of its own."),
        (bool(plan.packed), "Packed weights: vLLM quantizes in formats of its own, such as a checkpoint brings them."),
        (plan.merged or plan.kernels, "vLLM merges projections and fuses kernels always, in its own way."),
        (plan.threads, f"{plan.threads} processor threads: set VLLM_CPU_OMP_THREADS_BIND in the CPU build."),
    )
    beyond += [sentence for on, sentence in said if on]


ATTENTION = {"flex_attention": "FLEX_ATTENTION"}


def _requests(plan: Plan, workload: Workload, flags: Flags, beyond: list[str]) -> None:
    flags["seed"] = workload.seed
    length = f"max_tokens {workload.max_new_tokens}{', ignore_eos true' if workload.fixed_length else ''}"
    path = "/v1/chat/completions" if workload.chat else "/v1/completions"
    beyond.append(f"The requests: send each prompt to {path} with temperature {workload.temperature:g}, {length}.")


PARTS = (_model, _quantization, _cache, _scheduling, _speculation, _execution, _requests)
