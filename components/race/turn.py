"""Turn: one turn of one lane while it runs, as far as it has been shown."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from engine.event import Event, Finished, Memory, Step
from engine.measure.metrics import itl_ms, percentile
from engine.measure.timeline import Timeline

WINDOW_S = 1.5
MAX_GAP_POINTS = 400


@dataclass
class Turn:
    """A timeline, and what of it has not been sent yet."""

    number: int
    timeline: Timeline = field(default_factory=Timeline)
    window: deque[float] = field(default_factory=deque)
    shown: dict[int, int] = field(default_factory=dict)
    pieces: list[list[Any]] = field(default_factory=list)
    points: dict[str, list[list[float]]] = field(default_factory=dict)
    last_point: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    gaps: int = 0
    now: float = 0.0
    gap_median: tuple[int, float | None] = (0, None)

    def see(self, event: Event) -> None:
        self.timeline.see(event)
        self.now = max(self.now, event.t)
        if isinstance(event, Step):
            for request in event.requests:
                self._arrived(request)
            self._point("throughput", event.t, self.rate())
            self._crowd(event)
        elif isinstance(event, Memory):
            self._point("memory", event.t, in_use(event))

    def _arrived(self, request: int) -> None:
        """Pick up the tokens of a request that have not been shown yet."""
        own = self.timeline.requests[request]
        for place in range(self.shown.get(request, 0), len(own.tokens)):
            self.window.append(own.arrivals[place])
            self._piece(request, own.text[place], own.accepted[place])
            if place:
                self._gap(own.arrivals[place], own.arrivals[place] - own.arrivals[place - 1])
        self.shown[request] = len(own.tokens)

    def _piece(self, request: int, text: str, accepted: bool) -> None:
        last = self.pieces[-1] if self.pieces else None
        if last and last[0] == request and not accepted and not last[2]:
            last[1] += text
        else:
            self.pieces.append([request, text, int(accepted)])

    def _gap(self, t: float, seconds: float) -> None:
        """Every gap at first, then an even share of them: a chart cannot show more."""
        self.gaps += 1
        if self.gaps % (1 + self.gaps // MAX_GAP_POINTS) == 0:
            self._put("latency", t, seconds * 1000)

    def _point(self, chart: str, t: float, value: float | None) -> None:
        """Keep points apart by a share of the time so far, so that a long turn stays drawable."""
        elapsed = t - (self.timeline.started or t)
        if value is not None and t - self.last_point.get(chart, -1e9) >= 0.02 + elapsed / 100:
            self.last_point[chart] = t
            self._put(chart, t, value)

    def _crowd(self, step: Step) -> None:
        """Who shares a step and who waits: a point where that changes, and now and then where it does not."""
        for chart, count in {"flight": len(step.requests), "waiting": step.waiting}.items():
            if self.counts.get(chart) != count:
                self.last_point.pop(chart, None)
            self._point(chart, step.t, count)
            self.counts[chart] = count

    def _put(self, chart: str, t: float, value: float) -> None:
        x = max(0.0, t - (self.timeline.started if self.timeline.started is not None else t))
        xs, ys = self.points.setdefault(chart, [[], []])
        xs.append(round(x, 3))
        ys.append(round(value, 3))

    def rate(self) -> float | None:
        """Tokens per second over the last 1.5 s, or since the start where that is shorter."""
        start = self.timeline.started
        if start is None or self.now <= start:
            return None
        while self.window and self.window[0] < self.now - WINDOW_S:
            self.window.popleft()
        return len(self.window) / min(WINDOW_S, self.now - start) if self.timeline.output_tokens else None

    def progress(self, most: int) -> float:
        """The share of `most` tokens that came; all of it once the turn is over."""
        return 1.0 if isinstance(self.timeline.end, Finished) else min(1.0, self.timeline.output_tokens / most)

    def median_gap(self) -> float | None:
        """Median ITL so far; computed again only when 5 % more tokens came, since it sorts them all."""
        count, value = self.gap_median
        tokens = self.timeline.output_tokens
        if tokens > count * 1.05:
            value = percentile(itl_ms(self.timeline), 0.5)
            self.gap_median = (tokens, value)
        return value


def in_use(memory: Memory) -> float | None:
    """The bytes that the memory chart shows: allocated on a GPU, else resident in the worker."""
    return memory.allocated if memory.allocated is not None else memory.rss
