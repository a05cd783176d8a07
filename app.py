"""Build the page, mount it, serve it."""

import argparse
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import plotly
import uvicorn
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse
from starlette.responses import Response, StreamingResponse
from starlette.staticfiles import StaticFiles

from components.calm import Calm
from components.page import Page, rules
from components.theme import STATIC, head, theme
from engine.refusal import Refusal
from engine.run.jobs import Jobs
from engine.run.recordings import Library

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


def build(jobs: Jobs) -> FastAPI:
    """The web application around `jobs`."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        jobs.close()

    app = FastAPI(lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Calm)
    app.add_middleware(CORSMiddleware, allow_origins=[], allow_credentials=False)

    @app.get("/pitlane/plotly.min.js")
    def chart_library() -> FileResponse:
        return FileResponse(PLOTLY, headers={"Cache-Control": "no-cache"})

    page = Page(jobs)

    @app.get("/pitlane/files/{ticket}")
    def saved(ticket: str) -> Response:
        """A file of a visitor's own runs, for whom the page has handed out a ticket."""
        try:
            name, content = page.runs.file(ticket)
        except Refusal as refusal:
            return Response(str(refusal), status_code=404, media_type="text/plain")
        return Response(content, media_type="application/octet-stream", headers={
            "Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"})  # fmt: skip

    @app.get("/pitlane/runs/{run}/log")
    async def told(run: str, replay: str = "") -> Response:
        """A run's log as server-sent events, one view line each. Who knows the run's id may read it."""
        try:
            parts = page.racing.logs.stream(run, replay)
        except Refusal as refusal:
            return Response(str(refusal), status_code=404, media_type="text/plain")
        return StreamingResponse(events(parts), media_type="text/event-stream", headers={
            "Cache-Control": "no-store", "X-Accel-Buffering": "no"})  # fmt: skip

    for router in page.routes():
        app.include_router(router)
    app.mount("/pitlane", Fresh(directory=STATIC), name="pitlane")
    return gr.mount_gradio_app(
        app,
        page.build(),
        path="/",
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        show_error=False,
        allowed_paths=[],
        max_file_size="256kb",
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        theme=theme(),
        head=head(rules()),
    )


def arguments() -> argparse.Namespace:
    on_space = bool(os.environ.get("SPACE_ID"))
    host = os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0" if on_space else "127.0.0.1")
    port = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    parser = argparse.ArgumentParser(description="Serve the Pitlane page.")
    parser.add_argument("--host", default=host, help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=port, help="port to listen on (default %(default)s)")
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    store = Library.lasting()
    app = build(Jobs(store))
    print(store.notice, end="\n" * bool(store.notice))
    print(f"Pitlane is at http://{asked.host}:{asked.port}", flush=True)
    uvicorn.run(app, host=asked.host, port=asked.port, log_level="warning", timeout_graceful_shutdown=3)


if __name__ == "__main__":
    main()
