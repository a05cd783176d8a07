"""Calm: puts static/calm.js at the head of the page, before the scripts that keep a hold of what it replaces."""

from typing import Any

from components.theme import STATIC

HEAD = b"<head>"


class Calm:
    """ASGI middleware for the page itself; whatever else is served passes through as it is."""

    def __init__(self, app: Any):
        self.app = app
        self.script = b"<script>" + (STATIC / "calm.js").read_bytes() + b"</script>"

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        begun: dict[str, Any] = {}
        body = b""

        async def held(message: dict[str, Any]) -> None:
            nonlocal begun, body
            if message["type"] == "http.response.start":
                begun = message
                return
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            whole = body.replace(HEAD, HEAD + self.script, 1)
            headers = [(name, value) for name, value in begun["headers"] if name.lower() != b"content-length"]
            await send({**begun, "headers": [*headers, (b"content-length", str(len(whole)).encode())]})
            await send({"type": "http.response.body", "body": whole})

        await self.app(scope, receive, held)
