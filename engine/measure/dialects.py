"""Dialects: the same run under the names, and by the formulas, of other benchmarks."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from engine.measure.acceptance import speculation
from engine.measure.metrics import guesses_right, output_tok_per_s, percentile, requests_per_s
from engine.measure.timeline import RequestLine, Timeline

Values = Callable[[Timeline], list[float]]


@dataclass(frozen=True)
class Term:
    """One line of another benchmark's report, in its `unit`, read from one turn.

    `ours` is the metric of engine.measure.metrics it corresponds to, None where there is none; `differs` says how it
    differs, empty where the two agree.
    """

    name: str
    unit: str
    ours: str | None
    definition: str
    read: Callable[[Timeline], float | None]
    differs: str = ""


@dataclass(frozen=True)
class Dialect:
    """A benchmark: its `title`, where its definitions are from, and its terms in the order of its own report."""

    title: str
    source: str
    terms: tuple[Term, ...]


def answered(line: Timeline) -> list[RequestLine]:
    return [one for one in line.requests.values() if one.arrivals]


def first_tokens(line: Timeline) -> list[float]:
    """First token - start of each request, in milliseconds."""
    return [(one.arrivals[0] - one.start) * 1000 for one in answered(line)]


def latencies(line: Timeline) -> list[float]:
    """Last token - start of each request, in milliseconds."""
    return [(one.arrivals[-1] - one.start) * 1000 for one in answered(line)]


def later_tokens(line: Timeline) -> list[float]:
    """(last token - first token) / (n - 1) of each request with two tokens or more, in milliseconds."""
    return [one.tpot * 1000 for one in answered(line) if one.tpot is not None]


def every_token(line: Timeline) -> list[float]:
    """(last token - start) / n of each request, in milliseconds: the first token is one of the n."""
    return [(one.arrivals[-1] - one.start) * 1000 / len(one.arrivals) for one in answered(line)]


def chunks(line: Timeline) -> list[float]:
    """Every gap between the chunks of a request, in milliseconds, pooled: a step's tokens arrive as one chunk."""
    pairs = (pair for one in answered(line) for pair in zip(one.steps, one.steps[1:], strict=False))
    return [(later - earlier) * 1000 for earlier, later in pairs]


def speeds(line: Timeline) -> list[float]:
    """1 / TPOT of each request, in tokens a second."""
    return [1000 / value for value in later_tokens(line) if value]


def seconds(line: Timeline) -> float | None:
    return None if line.last is None else line.last - line.started


def total_tok_per_s(line: Timeline) -> float | None:
    """Prompt and output tokens together, divided by the time from the first start to the last token."""
    took, rate = seconds(line), output_tok_per_s(line)
    return rate + sum(one.prompt_tokens for one in answered(line)) / took if took and rate else None


def drafts_only(line: Timeline) -> float | None:
    """1 + accepted / drafts: the tokens of a step in which something was guessed."""
    found = speculation([line])
    return found and found["acceptance_length"]


def mean(values: Values) -> Callable[[Timeline], float | None]:
    return lambda line: fmean(found) if (found := values(line)) else None


def at(share: float, values: Values) -> Callable[[Timeline], float | None]:
    """A percentile as everywhere here: the 99th from 100 values up."""
    return lambda line: percentile(values(line), share)


def in_seconds(read: Callable[[Timeline], float | None]) -> Callable[[Timeline], float | None]:
    return lambda line: None if (found := read(line)) is None else found / 1000


def spread(name: str, unit: str, ours: str, definition: str, values: Values, differs: str = "") -> tuple[Term, ...]:
    """Mean, median and 99th percentile, as vLLM prints them."""
    marks = (("Mean", mean(values)), ("Median", at(0.5, values)), ("P99", at(0.99, values)))
    return tuple(Term(f"{mark} {name}", unit, ours, definition, read, differs) for mark, read in marks)


CHUNKED = (
    "Counts chunks, not tokens: several tokens of a speculative step are one chunk, so it is longer than our gap, "
    "which shares a step's time among its tokens."
)
UNGUESSED = "Counts only steps with a draft; ours counts those in which nothing was guessed as one token."
ALL_IN = "Divides by all n tokens and counts from the request's start, so the first token's wait is part of it."
AS_TPOT = "What AIPerf calls inter token latency is our TPOT, a mean for each request; our gaps are single ones."
SCHEDULED = "Counts from when the request was scheduled; ours does too where requests arrive by the clock."
VLLM = Dialect("vLLM (vllm bench serve)", "vLLM, vllm/benchmarks/serve.py", (
    Term("Request throughput", "req/s", "requests_per_s", "Requests / benchmark duration.", requests_per_s),
    Term("Output token throughput", "tok/s", "output_tok_per_s", "Output tokens / time from the first dispatch to the "
         "last finish.", output_tok_per_s),
    Term("Total token throughput", "tok/s", None, "Prompt and output tokens / the same time.", total_tok_per_s),
    *spread("TTFT", "ms", "ttft_ms", "First chunk - sent.", first_tokens),
    *spread("TPOT (excl. 1st token)", "ms", "tpot_ms", "(E2EL - TTFT) / (n - 1), over requests.", later_tokens),
    *spread("ITL", "ms", "itl_p50_ms", "Every gap between two chunks, pooled over requests.", chunks, CHUNKED),
    *spread("E2EL", "ms", "e2e_ms", "Last chunk - sent.", latencies),
    Term("Acceptance rate", "%", "acceptance_percent", "Accepted tokens / draft tokens.", guesses_right),
    Term("Acceptance length", "tokens", "tokens_per_step", "1 + accepted tokens / drafts.", drafts_only, UNGUESSED),
))  # fmt: skip
AIPERF = Dialect("AIPerf", "NVIDIA AIPerf, metrics reference", (
    Term("Time to First Token (avg)", "ms", "ttft_ms", "First response with content - start.", mean(first_tokens)),
    Term("Time to First Token (p99)", "ms", "ttft_ms", "First response with content - start.", at(.99, first_tokens)),
    Term("Request Latency (avg)", "ms", "e2e_ms", "Last response - start.", mean(latencies)),
    Term("Inter Token Latency (avg)", "ms", "tpot_ms", "(request latency - TTFT) / (n - 1).", mean(later_tokens),
         AS_TPOT),
    Term("Inter Token Latency (p99)", "ms", "tpot_ms", "(request latency - TTFT) / (n - 1).", at(.99, later_tokens),
         AS_TPOT),
    Term("Inter Chunk Latency (avg)", "ms", "itl_p50_ms", "Every gap between two chunks.", mean(chunks), CHUNKED),
    Term("Output Token Throughput Per User (avg)", "tok/s", None, "1 / inter token latency: without the first token.",
         mean(speeds)),
    Term("Output Token Throughput", "tok/s", "output_tok_per_s", "Output tokens / benchmark duration.",
         output_tok_per_s),
    Term("Request Throughput", "req/s", "requests_per_s", "Requests / benchmark duration.", requests_per_s),
))  # fmt: skip
GUIDELLM = Dialect("GuideLLM", "vllm-project/guidellm, docs/guides/metrics.md", (
    Term("Request latency (median)", "s", "e2e_ms", "Request end - request start.", in_seconds(at(.5, latencies))),
    Term("Time to first token (median)", "ms", "ttft_ms", "First token - request start.", at(.5, first_tokens)),
    Term("Inter-token latency (median)", "ms", "tpot_ms", "(last token - first token) / (n - 1).",
         at(.5, later_tokens), "What GuideLLM calls inter-token latency is our TPOT."),
    Term("Time per output token (median)", "ms", "tpot_ms", "(last token - request start) / n.", at(.5, every_token),
         ALL_IN),
    Term("Output tokens per second", "tok/s", "output_tok_per_s", "Output tokens over the run.", output_tok_per_s),
    Term("Requests per second", "req/s", "requests_per_s", "Requests over the run.", requests_per_s),
))  # fmt: skip
MLPERF = Dialect("MLPerf (LoadGen)", "MLCommons inference, loadgen/results.cc", (
    Term("Mean First Token latency", "ms", "ttft_ms", "First token - scheduled issue.", mean(first_tokens), SCHEDULED),
    Term("99.00 percentile first token latency", "ms", "ttft_ms", "First token - scheduled issue.",
         at(.99, first_tokens), SCHEDULED),
    Term("Mean Time to Output Token", "ms", "tpot_ms", "(latency - first token latency) / (n - 1).",
         mean(later_tokens)),
    Term("99.00 percentile time to output token", "ms", "tpot_ms", "(latency - first token latency) / (n - 1).",
         at(.99, later_tokens)),
    Term("Mean latency", "ms", "e2e_ms", "Last token - scheduled issue.", mean(latencies), SCHEDULED),
    Term("Completed tokens per second", "tok/s", "output_tok_per_s", "Output tokens / time until the last query is "
         "done.", output_tok_per_s),
))  # fmt: skip
DIALECTS: dict[str, Dialect] = {"vllm": VLLM, "aiperf": AIPERF, "guidellm": GUIDELLM, "mlperf": MLPERF}
"""By the name of --as. Definitions as of the end of 2026; LoadGen prints nanoseconds."""


def translate(dialect: Dialect, lanes: Sequence[Iterable[Timeline]]) -> list[dict[str, Any]]:
    """A row for each term that says something here: its value for each lane, the median over the lane's turns.

    `lanes` holds the turns of each lane that ended well.
    """
    turns = [list(lines) for lines in lanes]
    rows = [
        {"name": term.name, "unit": term.unit, "ours": term.ours, "definition": term.definition,
         "differs": term.differs, "values": [_middle(term, lines) for lines in turns]}
        for term in dialect.terms
    ]  # fmt: skip
    return [row for row in rows if any(value is not None for value in row["values"])]


def _middle(term: Term, lines: list[Timeline]) -> float | None:
    found = [value for line in lines if (value := term.read(line)) is not None]
    return median(found) if found else None
