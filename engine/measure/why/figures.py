"""The figures that findings stand on: what each is called, its unit and its definition, for cards and reports."""

from dataclasses import dataclass
from typing import Any

from engine.measure.metrics import METRICS


@dataclass(frozen=True)
class Figure:
    title: str
    unit: str
    definition: str


FIGURES = {
    "step_ms": Figure("a step", "ms", "How long one step of the engine took: time per token times tokens in a step."),
    "tokens_per_step": Figure("tokens a step", "", f"Acceptance length. {METRICS['tokens_per_step'].definition}"),
    "draft_ms": Figure("guessing", "ms", "Time that the draft took in a step in which it was asked."),
    "acceptance_rate": Figure("guesses right", "%", f"Acceptance rate. {METRICS['acceptance_percent'].definition}"),
    "bytes": Figure("read in a step", "bytes", "Weights, keys and values that one decode step reads."),
    "share": Figure("of the ceiling", "%", "The speed reached, of what this machine's bandwidth and arithmetic allow."),
    "difference_share": Figure("of the difference", "%", "How much of the difference between the lanes lies there."),
    "widening_ms": Figure("changing formats", "ms", "Time of a step in operators that widen or round numbers."),
    "operators": Figure("such operators", "", "Operators of one step that change number formats."),
    "products_ms": Figure("products", "ms", "Time of a step in the products with the weights."),
    "ms": Figure("of a step", "ms", "Time of a step in this kind of work, by the profile of one step."),
    "products_share": Figure("products", "%", "Share of a step in the products with the weights."),
    "launches": Figure("launches a step", "", "Operators or kernels that one decode step starts."),
    "in_flight": Figure("requests a step", "", "Requests that receive a token in one step, mean over the steps."),
    "requests": Figure("requests", "", "Requests in one round."),
    "idle": Figure("empty places", "%", "Places in the steps of a batch whose request had its answer already."),
    "padding": Figure("padding", "%", "Places in the prompts of a batch that shorter prompts left empty."),
    "queue_ms": Figure("wait", "ms", "From a request's arrival until the engine took it, median."),
    "ttft_ms": Figure("first token", "ms", "Time to first token, median."),
    "e2e_ms": Figure("whole answer", "ms", "From the request's start to its last token, median."),
    "tpot_ms": Figure("a token", "ms", "Time per output token after the first, median."),
    "workers": Figure("workers", "", "Processes with a whole model each."),
    "ranks": Figure("ranks", "", "Processes that share the layers of one model."),
    "exchange_ms": Figure("exchanging", "ms", "Time of a step in which ranks exchange their parts."),
    "threads": Figure("threads", "", "Processor cores that share an operator."),
    "gb_per_s": Figure("read", "GB/s", "Bytes of a step divided by its time."),
    "recompiles": Figure("compiled again", "", "Graphs that were compiled inside the last round."),
    "compile_s": Figure("compiling", "s", "Time for compiling, paid once."),
    "payback_tokens": Figure("paid back after", "tokens", "Tokens after which faster steps have earned it back."),
    "output_tokens": Figure("written", "tokens", "Tokens of all rounds together."),
    "tokens_read": Figure("read in a step", "tokens", "Tokens whose keys and values a step computes, mean."),
    "reused_percent": Figure("prompt reused", "%", "Prompt tokens that were copied from an earlier request."),
    "kv_bytes": Figure("keys and values", "bytes", "Largest size of the kept keys and values."),
    "peak_bytes": Figure("memory", "bytes", "The most that the engine's process held."),
    "weights_bytes": Figure("weights", "bytes", "Bytes of the loaded weights."),
}
OVER = "over_"
"""The same figure of the lane that is compared with."""
PERCENT = ("idle", "padding", "acceptance_rate", "share", "difference_share", "products_share")
"""Kept as shares of one."""


def figures(evidence: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures of a card: title, `value` and `other` (the compared lane's, None without), unit and definition."""
    known = [name for name in FIGURES if isinstance(evidence.get(name), int | float)]
    return [
        {**vars(FIGURES[name]), "value": _shown(name, evidence[name]), "other": _shown(name, evidence.get(OVER + name))}
        for name in known
    ]


def _shown(name: str, value: float | None) -> float | None:
    return value if value is None else 100 * value if name in PERCENT else value
