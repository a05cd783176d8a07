"""The hub's side of ZeroGPU, as far as the package `spaces` asks it: who may have the GPU, and since when not."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit


class Hub(ThreadingHTTPServer):
    """Notes what it is asked, and lends one GPU as long as somebody has `left` seconds."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Desk)
        self.asked: list[dict[str, str]] = []
        self.left = 120

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def of(self, what: str) -> list[dict[str, str]]:
        return [one for one in self.asked if one["what"] == what]


class Desk(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        url, hub = urlsplit(self.path), self.server
        asked = {"what": url.path.strip("/"), **dict(parse_qsl(url.query))}
        hub.asked.append(asked)
        status, told = 200, {}
        if asked["what"] == "schedule":
            turn = len(hub.of("schedule"))
            told = {"idle": turn > 1, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": f"turn {turn}"}
            if int(asked["durationSeconds"]) > hub.left:
                status, told = 429, {"left": hub.left, "wait": 3600}
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *said):
        pass


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
