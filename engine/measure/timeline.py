"""Timeline: the fold of one turn's events (one lane, one round)."""

from dataclasses import dataclass, field
from typing import Any, Self

from engine.event import Admitted, Conditions, Event, Failed, Finished, Memory, Phase, Power, Request, Step


@dataclass
class RequestLine:
    """One request: when it arrived, when it was admitted (None: it never waited), and when each of its tokens came.

    Times are seconds on the worker's clock; `reused` of the prompt tokens had been read for an earlier request.
    `opening` tokens came with the first step: one, or several where an engine guesses in it already.
    """

    start: float
    prompt_tokens: int
    admitted: float | None = None
    reused: int = 0
    opening: int = 0
    arrivals: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    accepted: list[bool] = field(default_factory=list)

    def see(self, t: float, tokens: tuple[int, ...], text: tuple[str, ...], accepted: int) -> None:
        """Tokens accepted in one speculative step share the step's time evenly."""
        before = self.arrivals[-1] if self.arrivals else None
        self.opening = self.opening or len(tokens)
        for place in range(len(tokens)):
            share = (place + 1) / len(tokens)
            self.arrivals.append(t if before is None else before + (t - before) * share)
            self.accepted.append(place < accepted)
        self.steps.append(t)
        self.tokens.extend(tokens)
        self.text.extend(text or [""] * len(tokens))

    @property
    def later(self) -> int:
        """Tokens that came after the first step."""
        return len(self.tokens) - self.opening

    @property
    def ttft(self) -> float | None:
        """Seconds from arrival to the first token."""
        return self.arrivals[0] - self.start if self.arrivals else None

    @property
    def tpot(self) -> float | None:
        """Seconds for each token after the first step; None without any."""
        return (self.arrivals[-1] - self.arrivals[0]) / self.later if self.later else None


@dataclass(frozen=True)
class Terms:
    """What a workload asks beside its text: how requests arrive, and the limits that goodput counts by (0: none)."""

    open_loop: bool = False
    ttft_limit_ms: float = 0.0
    tpot_limit_ms: float = 0.0

    @classmethod
    def of(cls, workload: Any) -> Self:
        """What the metrics must know of an engine.spec.Workload."""
        return cls(workload.open_loop, workload.ttft_limit_ms, workload.tpot_limit_ms)

    @property
    def limited(self) -> bool:
        return bool(self.ttft_limit_ms or self.tpot_limit_ms)

    def met(self, line: RequestLine) -> bool:
        """Whether a request kept every limit that is set; one without a first token kept none."""
        if line.ttft is None:
            return False
        late = self.ttft_limit_ms and line.ttft * 1000 > self.ttft_limit_ms
        slow = self.tpot_limit_ms and (line.tpot or 0.0) * 1000 > self.tpot_limit_ms
        return not (late or slow)


@dataclass
class Timeline:
    """One turn. Small and mutable, with one method `see`; the metrics read it.

    `answered` counts the requests of every step, all steps together, `peak` the most in one step, and
    `queue` the most that waited at once. `guessed` holds, for each step with guesses, how many and how many were right.
    """

    terms: Terms = Terms()
    requests: dict[int, RequestLine] = field(default_factory=dict)
    memory: list[Memory] = field(default_factory=list)
    power: list[Power] = field(default_factory=list)
    conditions: list[Conditions] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    steps: int = 0
    answered: int = 0
    peak: int = 0
    queue: int = 0
    drafted: int = 0
    accepted: int = 0
    guessed: list[tuple[int, int]] = field(default_factory=list)
    end: Finished | Failed | None = None

    def see(self, event: Event) -> None:
        match event:
            case Step():
                self._step(event)
            case Request():
                self.requests[event.request] = RequestLine(event.t, event.prompt_tokens)
            case Admitted():
                line = self.requests[event.request]
                line.admitted, line.reused = event.t, event.reused
            case Memory():
                self.memory.append(event)
            case Power():
                self.power.append(event)
            case Conditions():
                self.conditions.append(event)
            case Phase():
                self.phases.append(event)
            case Finished() | Failed():
                self.end = event

    def _step(self, step: Step) -> None:
        self.steps += 1
        self.answered += len(step.requests)
        self.peak = max(self.peak, len(step.requests))
        self.queue = max(self.queue, step.waiting)
        self.drafted += step.drafted
        self.accepted += step.accepted
        if step.drafted or step.accepted:
            self.guessed.append((step.drafted, step.accepted))
        texts = step.text or ((),) * len(step.requests)
        for request, tokens, text in zip(step.requests, step.tokens, texts, strict=True):
            self.requests[request].see(step.t, tokens, text, step.accepted)

    @property
    def started(self) -> float | None:
        """When the first request entered, or None before that."""
        return min((line.start for line in self.requests.values()), default=None)

    @property
    def last(self) -> float | None:
        """When the newest token arrived, or None before the first."""
        return max((line.arrivals[-1] for line in self.requests.values() if line.arrivals), default=None)

    @property
    def output_tokens(self) -> int:
        return sum(len(line.tokens) for line in self.requests.values())

    def text(self, request: int) -> str:
        return "".join(self.requests[request].text)

    def spans(self) -> dict[str, float]:
        """Seconds spent in each phase, from its first event to the next phase's first."""
        starts: list[tuple[str, float]] = []
        for phase in self.phases:
            if not starts or starts[-1][0] != phase.name:
                starts.append((phase.name, phase.t))
        ends = [t for _, t in starts[1:]] + [self.end.t if self.end else starts[-1][1]] if starts else []
        spent: dict[str, float] = {}
        for (name, start), end in zip(starts, ends, strict=True):
            spent[name] = spent.get(name, 0.0) + end - start
        return spent
