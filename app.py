"""Build the page, mount it, serve it."""

import argparse
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import plotly
import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse
from starlette.middleware import Middleware
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute
from starlette.staticfiles import StaticFiles

from components.calm import Calm
from components.page import Page, rules
from components.theme import STATIC, head, theme
from engine.lessons import lessons
from engine.mcp import Tools, installed
from engine.measure.machine import machine
from engine.models import cache
from engine.refusal import Refusal
from engine.run.jobs import Jobs
from engine.run.recordings import Library
from engine.run.store import passing
from engine.run.workshop import Workshop

PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


class Fresh(StaticFiles):
    """Files that the browser may keep but asks about each time, so that an update shows at once."""

    def file_response(self, *args, **kwargs) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


async def events(parts: AsyncIterator[str]) -> AsyncIterator[str]:
    """Lines as server-sent events (WHATWG HTML, section 9.2); what comes together is sent together."""
    async for part in parts:
        yield "".join(f"data: {line}\n\n" for line in part.splitlines())


def routes(page: Page) -> list[BaseRoute]:
    """What is served beside Gradio's own addresses."""
    router = APIRouter()

    @router.get("/pitlane/plotly.min.js")
    def chart_library() -> FileResponse:
        return FileResponse(PLOTLY, headers={"Cache-Control": "no-cache"})

    @router.get("/pitlane/files/{ticket}")
    def saved(ticket: str) -> Response:
        """A file of a visitor's own runs, for whom the page has handed out a ticket."""
        try:
            name, content = page.runs.file(ticket)
        except Refusal as refusal:
            return Response(str(refusal), status_code=404, media_type="text/plain")
        return Response(content, media_type="application/octet-stream", headers={
            "Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"})  # fmt: skip

    @router.get("/pitlane/runs/{run}/log")
    async def told(run: str, replay: str = "") -> Response:
        """A run's log as server-sent events, one view line each. Who knows the run's id may read it."""
        try:
            parts = page.racing.logs.stream(run, replay)
        except Refusal as refusal:
            return Response(str(refusal), status_code=404, media_type="text/plain")
        return StreamingResponse(events(parts), media_type="text/event-stream", headers={
            "Cache-Control": "no-store", "X-Accel-Buffering": "no"})  # fmt: skip

    for other in page.routes():
        router.include_router(other)
    router.mount("/pitlane", Fresh(directory=STATIC), name="pitlane")
    return router.routes


def around(page: Page, jobs: Jobs) -> dict[str, Any]:
    """The application that Gradio's page is a part of, as what FastAPI is called with."""
    tools = Tools(jobs, page.programs.owner) if installed() else None

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        async with tools.serving() if tools else nullcontext():
            yield
        jobs.close()

    return {
        "routes": [*([page.programs.guarded(tools.route())] if tools else []), *routes(page)],
        "middleware": [Middleware(CORSMiddleware, allow_origins=[], allow_credentials=False), Middleware(Calm)],
        "lifespan": life,
        **dict.fromkeys(("docs_url", "redoc_url", "openapi_url")),
    }


def manner() -> dict[str, Any]:
    """How Gradio serves the page, mounted or launched."""
    return {
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
        "show_error": False,
        "allowed_paths": [],
        "max_file_size": "256kb",
        "ssr_mode": False,
        "mcp_server": False,
        "pwa": False,
        "theme": theme(),
        "head": head(rules()),
    }


def build(jobs: Jobs, workshop: Workshop | None = None) -> FastAPI:
    """The web application around `jobs`."""
    page = Page(jobs, workshop)
    return gr.mount_gradio_app(FastAPI(**around(page, jobs)), page.build(), path="/", **manner())


def launch(jobs: Jobs, host: str, port: int, workshop: Workshop | None = None) -> None:
    """The same by Gradio's own server: on ZeroGPU the package `spaces` lends no GPU to a page that is not launched."""
    page = Page(jobs, workshop)
    served = {"server_name": host, "server_port": port, "share": False, "quiet": True, "prevent_thread_lock": True}
    blocks = page.build()
    blocks.launch(app_kwargs=around(page, jobs), **served, **manner())
    print(ways(host, port, workshop), flush=True)
    blocks.block_thread()


class Answering(uvicorn.Server):
    """A server that says where it is once it answers there."""

    def __init__(self, config: uvicorn.Config, said: str):
        super().__init__(config)
        self.said = said

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(self.said, flush=True)


def ways(host: str, port: int, workshop: Workshop | None) -> str:
    """Where the page is, and the ways into a workshop."""
    page = f"Pitlane is at http://{host}:{port}"
    return f"{page}\n{workshop.links(port)}" if workshop else page


def arguments() -> argparse.Namespace:
    on_space = bool(os.environ.get("SPACE_ID"))
    host = os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0" if on_space else "127.0.0.1")
    port = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    parser = argparse.ArgumentParser(description="Serve the Pitlane page.")
    parser.add_argument("--host", default=host, help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=port, help="port to listen on (default %(default)s)")
    parser.add_argument("--workshop", action="store_true", help="open a room in which many follow one presenter")
    return parser.parse_args()


def settle() -> None:
    """Where a container's home cannot be written, models are kept as long as the server lasts, and a line says so."""
    try:
        cache.folder()
    except Refusal as refusal:
        os.environ["PITLANE_CACHE"] = str(passing())
        print(f"{refusal} Until then, models are kept in {os.environ['PITLANE_CACHE']}.", flush=True)


def main() -> None:
    asked = arguments()
    settle()
    store = Library.lasting()
    jobs = Jobs(store)
    print(store.notice, end="\n" * bool(store.notice))
    taught = lessons(os.environ.get("PITLANE_SIMULATED") == "1")
    workshop = Workshop(jobs, taught, host=asked.host) if asked.workshop else None
    if machine().zero_gpu:
        launch(jobs, asked.host, asked.port, workshop)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # uvicorn raises it again at its end: exit handlers then run
    app = build(jobs, workshop)
    served = {"host": asked.host, "port": asked.port, "log_level": "warning", "timeout_graceful_shutdown": 3}
    Answering(uvicorn.Config(app, **served), ways(asked.host, asked.port, workshop)).run()


if __name__ == "__main__":
    main()
