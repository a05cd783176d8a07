"""Programs: what a program may ask of the server, over plain HTTP and through Gradio's client."""

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from components.page.visitor import foreign, here, visited
from components.watch import ENDED, POLL_S
from engine.public import TooOften
from engine.refusal import Refusal
from engine.spec import Experiment

MOST_BYTES = 256 * 1024
PART = 500
"""Records that are written at once, so that a long run does not hold up other visitors."""
FOREIGN = "A page of another site may not start runs here."
UNWATCHED = "A run that nobody watches is stopped after a minute: read its events, or ask for its result again."
SALT = secrets.token_bytes(16)


class Programs:
    """`logs` streams what the stage is sent of a run."""

    def __init__(self, jobs: Any, logs: Any):
        self.jobs, self.logs = jobs, logs
        jobs.door.address = here

    def wire(self) -> None:
        gr.api(self.run, api_name="run", concurrency_limit=None)

    def owner(self) -> str:
        """All programs of one address are one person, whose runs take turns with those of others."""
        return f"api-{hashlib.sha256(SALT + here().encode()).hexdigest()[:16]}"

    async def run(self, experiment: str) -> AsyncIterator[str]:
        """Run an experiment (JSON) and yield the growing log of view lines (JSONL)."""
        try:
            run = self.jobs.submit(Experiment.read(json.loads(experiment)), self.owner())
        except (Refusal, ValueError) as error:
            raise gr.Error(str(error), print_exception=False) from None
        log = ""
        async for text in self.logs.follow(run):
            log += text
            yield log

    def routes(self) -> APIRouter:
        """Start a run, read what it says, read what came of it."""
        router = APIRouter()
        router.add_route("/pitlane/experiments", self.start, methods=["POST"])
        router.add_route("/pitlane/runs/{run}/events", self.events)
        router.add_route("/pitlane/runs/{run}/result", self.result)
        return router

    async def start(self, request: Request) -> Response:
        """An experiment as JSON in, the run's addresses out."""
        if problem := _unfit(request):
            return problem
        body = await _body(request)
        if body is None:
            return _refused(413, f"An experiment has at most {MOST_BYTES // 1024} KB.", "Shorten its prompts.")
        try:
            with visited(request):
                run = await asyncio.to_thread(self._submit, body)
        except TooOften as refusal:
            return _refused(429, refusal.why, refusal.hint)
        except Refusal as refusal:
            return _refused(400, refusal.why, refusal.hint)
        base = f"{request.scope.get('root_path', '')}/pitlane/runs/{run}"
        where = {name: f"{base}/{name}" for name in ("log", "events", "result")}
        return JSONResponse({"run": run, **where, "note": UNWATCHED}, 202)

    async def events(self, request: Request) -> Response:
        """Everything the engine says, one record a line, from the first one to the run's end."""
        run = request.path_params["run"]
        if not self._known(run):
            return _unknown()
        quiet = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._records(run), media_type="application/x-ndjson", headers=quiet)

    async def result(self, request: Request) -> Response:
        """How far it is, and the result once it has ended."""
        run = request.path_params["run"]
        if not self._known(run):
            return _unknown()
        self.jobs.watch(run)
        state, position = self.jobs.state(run), self.jobs.position(run)
        told = {"run": run, "state": state, "position": position, "result": self.jobs.result(run)}
        return JSONResponse(told, headers={"Cache-Control": "no-store"})

    def guarded(self, route: Route) -> Route:
        """The same route, but not for pages of other sites, and with the visitor's address known behind it."""
        inner = route.app

        async def outer(scope: dict[str, Any], receive: Any, send: Any) -> None:
            request = Request(scope)
            if foreign(request.headers):
                await _refused(403, FOREIGN, "Use a program.")(scope, receive, send)
                return
            with visited(request):
                await inner(scope, receive, send)

        route.app = outer
        return route

    def _submit(self, body: bytes) -> str:
        try:
            data = json.loads(body)
        except ValueError as error:
            raise Refusal(f"This is not JSON: {error}.", "Send an experiment as one JSON object.") from None
        return self.jobs.submit(Experiment.read(data), self.owner())

    def _known(self, run: str) -> bool:
        try:
            self.jobs.state(run)
        except Refusal:
            return False
        return True

    async def _records(self, run: str) -> AsyncIterator[str]:
        seen = 0
        while True:
            self.jobs.watch(run)
            state = self.jobs.state(run)
            records = self.jobs.records(run, seen)
            seen += len(records)
            for first in range(0, len(records), PART):
                yield "".join(f"{record.line()}\n" for record in records[first : first + PART])
            if state in ENDED:
                return
            await asyncio.sleep(POLL_S)


def _unfit(request: Request) -> Response | None:
    if foreign(request.headers):
        return _refused(403, FOREIGN, "Use a program, or the page itself.")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return _refused(415, "An experiment is sent as JSON.", "Set the header Content-Type: application/json.")
    return None


async def _body(request: Request) -> bytes | None:
    """What was sent; None where it is too long, of which no more is read."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            return None
    return body


def _refused(status: int, why: str, hint: str) -> JSONResponse:
    return JSONResponse({"error": why, "hint": hint}, status)


def _unknown() -> JSONResponse:
    return _refused(404, "There is no such run here.", "Start one: POST /pitlane/experiments.")
