"""A workshop: one room with a code, in which everybody predicts and watches the same run."""

import hmac
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from engine.lessons import Guess, Lesson
from engine.refusal import Refusal
from engine.run.jobs import Jobs

LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Without those that are taken for one another when read from a wall: I and 1, O and 0."""
CODE = 6
SEATS = 300
LONGEST = 24
AWAY_S = 15.0
GOING = ("queued", "running")
ANY, HERE = ("0.0.0.0", "::"), ("127.0.0.1", "localhost", "::1")
"""Addresses to listen on that are every network's, and nobody else's."""


@dataclass
class Seat:
    """Somebody in the room. `seen` is when their page was last heard of."""

    name: str
    leads: bool
    seen: float
    guess: Guess | None = None


class Workshop:
    """Thread-safe, and kept in memory: a room lasts as long as its server.

    Whoever knows the code may take a seat, and gets a token for it that nobody else knows; who knows the secret as
    well leads. The shared run belongs to the room and is nobody's own, so it is in nobody's history, and nothing of
    anybody's own runs is in the room.
    """

    def __init__(
        self,
        jobs: Jobs,
        lessons: Mapping[str, Lesson],
        clock: Callable[[], float] = time.monotonic,
        host: str = HERE[0],
    ):
        self.jobs, self.lessons, self.clock = jobs, lessons, clock
        self.host, self.numbers = host, numbers() if host in ANY else []
        self.code = "".join(secrets.choice(LETTERS) for _ in range(CODE))
        self.secret = secrets.token_urlsafe(16)
        self.owner = f"workshop-{secrets.token_hex(8)}"
        self.lock = threading.RLock()
        self.seats: dict[str, Seat] = {}
        self.guests = 0
        self.lesson: str | None = None
        self.run: str | None = None
        self.told: dict[str, Any] | None = None

    def links(self, port: int) -> str:
        """The ways into the room, for the terminal of a server that listens at `host` and there."""
        name = socket.gethostname() if self.host in ANY else self.host
        address = f"http://{name}:{port}/?room={self.code}"
        numbers = [f"  phones may need: http://{one}:{port}/?room={self.code}" for one in self.numbers]
        alone = "Only this computer can open them: start with --host 0.0.0.0 to let others in."
        lines = [f"Workshop, room {self.code}", f"  everybody: {address}", f"  presenter: {address}&lead={self.secret}"]
        return "\n".join([*lines, *numbers, *([alone] if self.host in HERE else [])])

    def enter(self, code: str, name: str = "", secret: str = "") -> str:
        """Take a seat and return its token. Raises Refusal for a wrong code, a wrong secret, and a full room."""
        if not hmac.compare_digest(str(code).strip().upper().encode(), self.code.encode()):
            raise Refusal("There is no room with this code.", "Read it once more from the presenter's screen.")
        if secret and not hmac.compare_digest(str(secret).encode(), self.secret.encode()):
            raise Refusal(
                "This is not the presenter's link of this room.", "It is printed where the server was started."
            )
        with self.lock:
            self._make_room()
            self.guests += not secret
            given = _plain(name) or ("Presenter" if secret else f"Guest {self.guests}")
            token = secrets.token_urlsafe(16)
            self.seats[token] = Seat(given, bool(secret), self.clock())
            return token

    def rename(self, token: str, name: str) -> None:
        """Call oneself something else. Raises Refusal for an empty name."""
        with self.lock:
            if not _plain(name):
                raise Refusal("A name needs at least one letter.", "Or stay who you are.")
            self._seat(token).name = _plain(name)

    def pick(self, token: str, lesson: str) -> None:
        """The presenter opens a lesson; everybody's prediction is still to be made. Raises Refusal."""
        with self.lock:
            self._leader(token)
            if lesson not in self.lessons:
                raise Refusal("There is no such lesson.", "Reload the page.")
            if self._going():
                raise Refusal("The run is still going.", "Wait for its end, or skip it.")
            self.lesson, self.run, self.told = lesson, None, None
            for seat in self.seats.values():
                seat.guess = None

    def predict(self, token: str, guess: Any) -> None:
        """Commit to a guess, or to another until the run starts. Raises Refusal for one that is late or no answer."""
        with self.lock:
            seat = self._seat(token)
            if self.lesson is None:
                raise Refusal("No lesson is open.", "Wait until the presenter opens one.")
            if self.run:
                raise Refusal("The run has begun, so it is too late to predict.", "Watch it, and predict in the next.")
            seat.guess = self.lessons[self.lesson].prediction.accept(guess)

    def start(self, token: str) -> str:
        """The presenter starts the run that all watch; predictions are closed. Raises Refusal."""
        with self.lock:
            self._leader(token)
            if self.lesson is None:
                raise Refusal("No lesson is open.", "Open one first.")
            if self._going():
                raise Refusal("The run is going on already.", "Wait for its end, or skip it.")
            self.run = self.jobs.submit(self.lessons[self.lesson].experiment(), self.owner)
            self.told = None
            return self.run

    def pause(self, token: str, on: bool) -> None:
        """Hold everybody's own runs, but not the shared one, or let them go on."""
        with self.lock:
            self._leader(token)
            self.jobs.hold(self.owner if on else None)

    def skip(self, token: str) -> None:
        """Stop what runs, whosever it is. Raises Refusal if nothing does."""
        with self.lock:
            self._leader(token)
            if not self.jobs.skip():
                raise Refusal("Nothing runs.", "There is nothing to skip.")

    def view(self, token: str) -> dict[str, Any]:
        """What the page of this seat shows, JSON-ready. Raises Refusal for an unknown seat."""
        with self.lock:
            seat = self._seat(token)
            seat.seen = self.clock()
            self._look()
            lesson = self.lessons.get(self.lesson or "")
            runs, waiting = self.jobs.load()
            board = self._board(token) if self.run else []
            return {
                "name": seat.name, "leads": seat.leads, "lesson": self.lesson, "guess": seat.guess, "run": self.run,
                "going": self._going(), "told": self.told, "board": board, "people": self._people(),
                "queue": {"runs": runs, "waiting": waiting, "held": self.jobs.held_for is not None},
                "mark": lesson.mark(self.told, seat.guess) if lesson and self.told and seat.guess is not None else None,
            }  # fmt: skip

    def _people(self) -> list[dict[str, Any]]:
        """Who is here, and who has committed to a guess; not to which."""
        here = [seat for seat in self.seats.values() if not seat.leads and self._here(seat)]
        return [{"name": seat.name, "ready": seat.guess is not None} for seat in here]

    def _board(self, token: str) -> list[dict[str, Any]]:
        """Everybody's guess, once they can no longer be changed; with a result the nearest first."""
        lesson = self.lessons[self.lesson or ""]
        rows = []
        for key, seat in self.seats.items():
            if seat.guess is not None:
                mark = lesson.mark(self.told, seat.guess) if self.told else {"right": None, "off": None}
                row = {"name": seat.name, "guess": seat.guess, "own": key == token}
                rows.append({**row, "right": mark["right"], "off": mark["off"]})
        return sorted(rows, key=lambda row: (row["right"] is False, abs(row["off"] or 0.0)))

    def _look(self) -> None:
        """Once the run has ended, what it says is read a single time."""
        if self.run and self.lesson and self.told is None and not self._going():
            self.told = self.lessons[self.lesson].told(self.jobs.result(self.run))

    def _going(self) -> bool:
        if not self.run or self.told is not None:
            return False
        self.jobs.watch(self.run)
        return self.jobs.state(self.run) in GOING

    def _seat(self, token: str) -> Seat:
        seat = self.seats.get(str(token))
        if not seat:
            raise Refusal("You have no seat in this room.", "Open the room's link again.")
        return seat

    def _leader(self, token: str) -> None:
        if not self._seat(token).leads:
            raise Refusal("Only the presenter can do this.", "Open the presenter's link.")

    def _here(self, seat: Seat) -> bool:
        return self.clock() - seat.seen < AWAY_S

    def _make_room(self) -> None:
        """Where all seats are taken, those whose page was left without a guess are free."""
        if len(self.seats) < SEATS:
            return
        self.seats = {
            key: one for key, one in self.seats.items() if one.leads or one.guess is not None or self._here(one)
        }
        if len(self.seats) >= SEATS:
            raise Refusal(f"The room is full: it has {SEATS} seats.", "Watch on somebody else's screen.")


def numbers() -> list[str]:
    """This computer's addresses in its networks: a phone seldom knows its name."""
    every = [one for found in psutil.net_if_addrs().values() for one in found if one.family == socket.AF_INET]
    return [one.address for one in every if not one.address.startswith(("127.", "169.254."))]


def _plain(name: Any) -> str:
    """A name as it was written, without what cannot be seen, and not too long."""
    words = str(name or "").split()
    return " ".join("".join(c for c in word if c.isprintable()) for word in words)[:LONGEST].strip()
