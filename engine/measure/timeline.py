"""Timeline: the fold of one turn's events (one lane, one round)."""

from dataclasses import dataclass, field

from engine.event import Event, Failed, Finished, Memory, Phase, Request, Step


@dataclass
class RequestLine:
    """One request: when it entered, and when each of its tokens arrived (seconds on the worker's clock)."""

    start: float
    prompt_tokens: int
    arrivals: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    accepted: list[bool] = field(default_factory=list)

    def see(self, t: float, tokens: tuple[int, ...], text: tuple[str, ...], accepted: int) -> None:
        """Tokens accepted in one speculative step share the step's time evenly."""
        before = self.arrivals[-1] if self.arrivals else None
        for place in range(len(tokens)):
            share = (place + 1) / len(tokens)
            self.arrivals.append(t if before is None else before + (t - before) * share)
            self.accepted.append(place < accepted)
        self.steps.append(t)
        self.tokens.extend(tokens)
        self.text.extend(text or [""] * len(tokens))


@dataclass
class Timeline:
    """One turn. Small and mutable, with one method `see`; the metrics read it."""

    requests: dict[int, RequestLine] = field(default_factory=dict)
    memory: list[Memory] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    steps: int = 0
    drafted: int = 0
    accepted: int = 0
    end: Finished | Failed | None = None

    def see(self, event: Event) -> None:
        match event:
            case Step():
                self._step(event)
            case Request():
                self.requests[event.request] = RequestLine(event.t, event.prompt_tokens)
            case Memory():
                self.memory.append(event)
            case Phase():
                self.phases.append(event)
            case Finished() | Failed():
                self.end = event

    def _step(self, step: Step) -> None:
        self.steps += 1
        self.drafted += step.drafted
        self.accepted += step.accepted
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
