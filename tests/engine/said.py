"""What a decode loop says: its events as plain lists."""

from engine.event import Event, Request, Step


class Said:
    """An emit function that keeps the tokens of each request, the position of every step, and counts the requests."""

    def __init__(self) -> None:
        self.tokens: dict[int, list[int]] = {}
        self.cached: list[int] = []
        self.requests = 0

    def __call__(self, event: Event) -> None:
        self.requests += isinstance(event, Request)
        if isinstance(event, Step):
            self.cached.append(event.cached)
            for request, new in zip(event.requests, event.tokens, strict=True):
                self.tokens.setdefault(request, []).extend(new)
