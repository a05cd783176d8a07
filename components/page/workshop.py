"""The workshop on the page: its room, and the addresses at which browsers act and listen."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr
import segno
from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from components.page.studying import Studying
from components.workshop import room
from engine.refusal import Refusal
from engine.run.workshop import Workshop

LOOK_S = 0.5
BEAT = 10
"""After so many looks without news a browser is sent the state all the same, so that it knows of the connection."""

LONGEST = 300


class Gathering:
    """The room, if this server holds a workshop."""

    def __init__(self, workshop: Workshop, studying: Studying):
        self.workshop, self.studying = workshop, studying

    def build(self) -> None:
        self.room = room(self.workshop.lessons)

    def wire(self, owner: gr.BrowserState, filled: list[Any]) -> None:
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        self.room.further(self.studying.further, None, filled, **quiet)
        self.room.reuse(self.studying.racing.reuse, [owner], filled, **quiet)
        self.room.attempt(self.studying.racing.attempt, [owner], filled, **quiet)

    def act(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Do what a browser asks for, for the seat whose token it names. Raises Refusal."""
        held, token = self.workshop, str(asked.get("seat", ""))
        acts = {
            "enter": lambda: held.enter(asked.get("code", ""), asked.get("name", ""), asked.get("secret", "")),
            "rename": lambda: held.rename(token, asked.get("name", "")),
            "pick": lambda: held.pick(token, str(asked.get("lesson"))),
            "predict": lambda: held.predict(token, asked.get("guess")),
            "start": lambda: held.start(token),
            "pause": lambda: held.pause(token, bool(asked.get("on"))),
            "skip": lambda: held.skip(token),
        }
        if asked.get("do") not in acts:
            raise Refusal("The room does not know this request.", "Reload the page.")
        done = acts[asked["do"]]()
        return {"seat": done} if asked["do"] == "enter" else {}

    async def live(self, token: str, number: str | None = None) -> AsyncIterator[str]:
        """The state of the room as server-sent events, whenever it has changed; `number` is this server's address."""
        known, looks = "", 0
        while True:
            try:
                text = json.dumps({**self.workshop.view(token), "number": number})
            except Refusal:  # the seat has been given to somebody else
                return
            if text != known or looks % BEAT == 0:
                yield f"data: {text}\n\n"
            known, looks = text, looks + 1
            await asyncio.sleep(LOOK_S)

    def routes(self) -> APIRouter:
        router = APIRouter(prefix="/pitlane/workshop")

        @router.post("")
        def act(asked: dict[str, Any] = Body()) -> JSONResponse:
            """A refusal is an answer like another: the page says it, and nothing went wrong on the way."""
            try:
                return JSONResponse(self.act(asked))
            except Refusal as refusal:
                return JSONResponse({"problem": str(refusal)})

        @router.get("/code.svg")
        def code(seat: str, link: str = Query(max_length=LONGEST)) -> Response:
            """The room's link to be read by a phone's camera, for the presenter's screen."""
            try:
                self.workshop.view(seat)
            except Refusal as refusal:
                return Response(str(refusal), status_code=404, media_type="text/plain")
            return Response(drawn(link), media_type="image/svg+xml", headers={"Cache-Control": "no-store"})

        @router.get("/live")
        async def live(seat: str, request: Request) -> Response:
            try:
                self.workshop.view(seat)
            except Refusal as refusal:
                return Response(str(refusal), status_code=404, media_type="text/plain")
            told = self.live(seat, number(request, self.workshop.numbers))
            quiet = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
            return StreamingResponse(told, media_type="text/event-stream", headers=quiet)

        return router


def number(request: Request, numbers: list[str]) -> str | None:
    """The address in numbers at which this browser has reached the server, or else the first of the computer's own.

    A name that the presenter's computer knows is often unknown to a phone. None where only this computer can come in.
    """
    host = (request.scope.get("server") or ("", 0))[0]
    own = next(iter(numbers), None)
    return host if own and host in numbers else own


def drawn(link: str) -> bytes:
    """A link as a QR code (ISO/IEC 18004), black on white in light and dark."""
    picture = io.BytesIO()
    segno.make(link, micro=False).save(picture, kind="svg", scale=4, border=2, light="#fff")
    return picture.getvalue()
