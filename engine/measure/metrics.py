"""The table of metrics: name, unit, which way is better, and how to read it from a timeline."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median
from typing import Literal

from engine.measure.acceptance import speculation
from engine.measure.timeline import Timeline

MIN_P99_SAMPLES = 100
MIN_P90_REQUESTS = 10


@dataclass(frozen=True)
class Metric:
    """One row of the table: read from one turn, or over several; None where the timelines do not say.

    Over several turns a metric is the median of theirs, unless it is `pooled` from all of their samples. One that is
    not `timed` counts tokens, so that other programs cannot change it.
    """

    name: str
    title: str
    unit: str
    better: Literal["higher", "lower"]
    definition: str
    turn: Callable[[Timeline], float | None] | None = None
    pooled: Callable[[list[Timeline]], float | None] | None = None
    timed: bool = True

    def read(self, line: Timeline) -> float | None:
        return self.turn(line) if self.turn else self.over([line])

    def over(self, lines: list[Timeline]) -> float | None:
        return self.pooled(lines) if self.pooled else _median(v for line in lines if (v := self.read(line)) is not None)


def ttft_ms(line: Timeline) -> float | None:
    """Request start to first token, median over the turn's requests, in milliseconds."""
    return _median((r.arrivals[0] - r.start) * 1000 for r in line.requests.values() if r.arrivals)


def tpot_ms(line: Timeline) -> float | None:
    """(last token - first token) / (n - 1) for each request, median over requests, in milliseconds.

    All tokens of a first step that gave several count as the first: they came at once, and no later step made them.
    """
    return _median(r.tpot * 1000 for r in line.requests.values() if r.tpot is not None)


def itl_ms(line: Timeline) -> list[float]:
    """Every gap between consecutive tokens of a request, in milliseconds, pooled over requests."""
    return [
        (later - earlier) * 1000
        for r in line.requests.values()
        for earlier, later in zip(r.arrivals, r.arrivals[1:], strict=False)
    ]


def e2e_ms(line: Timeline) -> float | None:
    """Request start to last token, median over requests, in milliseconds."""
    return _median((r.arrivals[-1] - r.start) * 1000 for r in line.requests.values() if r.arrivals)


def output_tok_per_s(line: Timeline) -> float | None:
    """All output tokens divided by the wall time from the first request's start to the last token."""
    if line.last is None or line.started is None or line.last <= line.started:
        return None
    return line.output_tokens / (line.last - line.started)


def prefill_tok_per_s(line: Timeline) -> float | None:
    """Prompt tokens of the requests that entered together divided by their TTFT, over the whole turn.

    Unknown where requests arrive by the clock: their TTFT holds the wait for a place as well.
    """
    if line.terms.open_loop:
        return None
    started = [r for r in line.requests.values() if r.arrivals and r.arrivals[0] > r.start]
    waits = {r.start: r.arrivals[0] - r.start for r in started}
    return sum(r.prompt_tokens for r in started) / sum(waits.values()) if started else None


def decode_tok_per_s(line: Timeline) -> float | None:
    """Tokens after each request's first step divided by the time in which requests were between first and last."""
    spans = sorted((r.arrivals[0], r.arrivals[-1]) for r in line.requests.values() if len(r.arrivals) > 1)
    took, until = 0.0, float("-inf")
    for first, last in spans:
        took += max(0.0, last - max(first, until))
        until = max(until, last)
    return sum(r.later for r in line.requests.values()) / took if took else None


def acceptance(line: Timeline) -> float | None:
    """Output tokens in each engine step and request after the first step; None without speculation.

    Requests weigh by their steps. A step in which nothing was guessed counts as well, with its one token.
    """
    steps = sum(len(r.steps) - 1 for r in line.requests.values() if r.steps)
    tokens = sum(r.later for r in line.requests.values())
    return tokens / steps if steps and (line.drafted or line.accepted) else None


def guesses_right(line: Timeline) -> float | None:
    """Accepted / drafted, in percent; None without guesses, or where an engine does not tell them."""
    found = speculation([line])
    return found and found["acceptance_rate"] and 100 * found["acceptance_rate"]


def ttft_p90_ms(line: Timeline) -> float | None:
    """The TTFT that nine requests in ten stayed below, in milliseconds; None for fewer than ten requests."""
    waits = [r.ttft * 1000 for r in line.requests.values() if r.ttft is not None]
    return percentile(waits, 0.9) if len(waits) >= MIN_P90_REQUESTS else None


def queue_ms(line: Timeline) -> float | None:
    """Arrival to admission, median over requests, in milliseconds; only where requests arrive by the clock."""
    admitted = [r for r in line.requests.values() if r.admitted is not None]
    return _median((r.admitted - r.start) * 1000 for r in admitted) if line.terms.open_loop else None


def requests_per_s(line: Timeline) -> float | None:
    """Requests that received a token, divided by the time from the first arrival to the last token."""
    return _per_second(line, sum(bool(r.arrivals) for r in line.requests.values()))


def goodput(line: Timeline) -> float | None:
    """Requests that kept the workload's limits, divided by the same time. Source: DistServe, arXiv:2401.09670."""
    return _per_second(line, sum(map(line.terms.met, line.requests.values()))) if line.terms.limited else None


def in_flight(line: Timeline) -> float | None:
    """Requests that received a token in one engine step, mean over the steps; None for a single request."""
    return line.answered / line.steps if line.steps and len(line.requests) > 1 else None


def reused(line: Timeline) -> float | None:
    """Prompt tokens whose keys and values were read for an earlier request, in percent; None where none were."""
    tokens = sum(r.reused for r in line.requests.values())
    return 100 * tokens / sum(r.prompt_tokens for r in line.requests.values()) if tokens else None


def _per_second(line: Timeline, count: int) -> float | None:
    if line.last is None or line.last <= line.started or len(line.requests) < 2:
        return None
    return count / (line.last - line.started)


def percentile(values: Iterable[float], share: float) -> float | None:
    """Linear interpolation between closest ranks; None without values, or for p99 from fewer than 100."""
    ordered = sorted(values)
    if not ordered or (share >= 0.99 and len(ordered) < MIN_P99_SAMPLES):
        return None
    place = (len(ordered) - 1) * share
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _median(values: Iterable[float]) -> float | None:
    values = list(values)
    return median(values) if values else None


def gaps(share: float) -> Callable[[list[Timeline]], float | None]:
    """A percentile of all gaps between tokens, pooled over requests and turns."""
    return lambda lines: percentile((gap for line in lines for gap in itl_ms(line)), share)


ITL = "Gap between two consecutive tokens of a request (inter-token latency), pooled over all rounds"
METRICS: dict[str, Metric] = {metric.name: metric for metric in (
    Metric("output_tok_per_s", "Tokens per second", "tok/s", "higher",
           "All output tokens divided by the time from the first request's start to the last token.",
           output_tok_per_s),
    Metric("ttft_ms", "First token (TTFT)", "ms", "lower",
           "Time to first token: from the request's start until its first token.", ttft_ms),
    Metric("tpot_ms", "Time per token (TPOT)", "ms", "lower",
           "Time per output token after the first: (last token - first token) / (n - 1). What the first step gave "
           "counts as the first, also where it gave several tokens.", tpot_ms),
    Metric("e2e_ms", "Whole answer (E2E)", "ms", "lower",
           "End-to-end latency: from the request's start until its last token.", e2e_ms),
    Metric("prefill_tok_per_s", "Prompt reading (prefill)", "tok/s", "higher",
           "Prompt tokens divided by the time to first token.", prefill_tok_per_s),
    Metric("decode_tok_per_s", "Writing (decode)", "tok/s", "higher",
           "Tokens after the first step of each request, divided by the time between first tokens and last: "
           "requests that share a step count together.", decode_tok_per_s),
    Metric("itl_p50_ms", "Median gap (ITL p50)", "ms", "lower", f"{ITL}: half are shorter.", pooled=gaps(0.5)),
    Metric("itl_p90_ms", "Slow gaps (ITL p90)", "ms", "lower", f"{ITL}: one in ten is longer.", pooled=gaps(0.9)),
    Metric("itl_p99_ms", "Slowest gaps (ITL p99)", "ms", "lower",
           f"{ITL}: one in a hundred is longer. From {MIN_P99_SAMPLES} gaps up.", pooled=gaps(0.99)),
    Metric("ttft_p90_ms", "Slow first tokens (TTFT p90)", "ms", "lower",
           f"One request in ten waits longer for its first token. From {MIN_P90_REQUESTS} requests up.", ttft_p90_ms),
    Metric("queue_ms", "Wait for a place (queue)", "ms", "lower",
           "From a request's arrival until the engine takes it, median over the requests.", queue_ms),
    Metric("goodput_per_s", "Requests within the limits (goodput)", "1/s", "higher",
           "Requests a second that kept the TTFT and TPOT limits of the workload.", goodput),
    Metric("requests_per_s", "Requests answered", "1/s", "higher",
           "All requests divided by the time from the first arrival to the last token.", requests_per_s),
    Metric("in_flight", "Requests in a step (in flight)", "requests", "higher",
           "Requests that receive a token in one step of the engine, mean over the steps.", in_flight),
    Metric("reused_percent", "Prompt reused (hit rate)", "%", "higher",
           "Prompt tokens whose keys and values were copied from an earlier request, of all prompt tokens.", reused,
           timed=False),
    Metric("tokens_per_step", "Tokens a step (acceptance length)", "tokens", "higher",
           "Tokens that a step gave a request after its first one: the right guesses and the model's own token (the "
           "bonus token), as in papers on speculative decoding. vLLM's mean acceptance length, 1 + accepted / drafts, "
           "leaves out steps in which nothing was guessed; here they count as 1.", acceptance, timed=False),
    Metric("acceptance_percent", "Guesses right (acceptance rate)", "%", "higher",
           "Guessed tokens that were kept, of all that were guessed: accepted / drafted.", guesses_right, timed=False),
)}  # fmt: skip
"""What charts, tables, the command line, exports and verdicts walk; the first is the headline."""
