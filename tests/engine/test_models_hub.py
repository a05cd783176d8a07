"""The hub, played by a server of our own: each trouble has its sentence."""

import json
import shutil
import socket
import subprocess
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from engine.models import embedded
from engine.models.resolve import resolve
from engine.refusal import Refusal
from tests.engine.plans import planned
from tests.engine.processes import python

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def one_sentence(text: str) -> bool:
    return text.endswith(".") and "\n" not in text and "Traceback" not in text


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does: repo facts, file tree, files with ETag, Range and the error headers."""

    protocol_version = "HTTP/1.1"
    repos: dict[str, Path] = {}
    errors = {
        "acme/missing": (401, {"X-Error-Code": "RepoNotFound"}),
        "acme/disabled": (403, {"X-Error-Message": "Access to this resource is disabled."}),
        "acme/limited": (429, {"Retry-After": "77"}),
        "acme/down": (503, {}),
    }
    gated = {"acme/gated": (403, {"X-Error-Code": "GatedRepo"})}
    log: list[str] = []

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool):
        path = self.path.partition("?")[0].removeprefix("/api/models").strip("/")
        repo, rest = "/".join(path.split("/")[:2]), path.split("/")[2:]
        Hub.log.append(f"{self.command} {self.path} {self.headers.get('Authorization', '-')}")
        if repo in self.errors:
            return self.reply(*self.errors[repo], b"{}", body)
        if rest[:1] == ["resolve"]:
            return self.file(repo, rest[-1], body)
        if repo not in self.repos:
            return self.reply(404, {}, b"{}", body)
        names = sorted(file.name for file in self.repos[repo].iterdir())
        sizes = {name: (self.repos[repo] / name).stat().st_size for name in names}
        if rest[:1] == ["tree"]:
            tree = [{"type": "file", "path": n, "size": s, "oid": f"{repo}{n}"} for n, s in sizes.items()]
            return self.reply(200, {}, json.dumps(tree).encode(), body)
        files = [{"rfilename": name, "size": size} for name, size in sizes.items()]
        facts = {"id": repo, "sha": COMMIT, "siblings": files, "private": False, "tags": []}
        return self.reply(200, {}, json.dumps(facts).encode(), body)

    def file(self, repo: str, name: str, body: bool):
        if repo in self.gated:
            return self.reply(*self.gated[repo], b"", body)
        data = (self.repos[repo] / name).read_bytes()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{repo.replace("/", "-")}-{name}"'}
        if body and repo == "acme/broken" and name == "model.safetensors":
            self.reply(200, headers, data, body=False)
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return None
        return self.reply(200, headers, data, body)

    def reply(self, status: int, headers: dict[str, str], data: bytes, body: bool):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


DRIVER = """
import json, sys
from engine.models.fetch import fetch
from engine.models.resolve import resolve
from engine.refusal import Refusal
from tests.engine.plans import planned
for repo in sys.argv[1:]:
    told = []
    try:
        folder = fetch(resolve(repo), lambda done, total, unit: told.append([done, total, unit]))
        print(json.dumps({"folder": str(folder), "told": told}))
    except Refusal as refusal:
        print(json.dumps({"why": refusal.why, "hint": refusal.hint}))
"""


@pytest.fixture(scope="module")
def hub(tiny, tmp_path_factory):
    """A function that fetches repositories of the fake hub in a process of its own and gives the outcomes."""
    base = tmp_path_factory.mktemp("hub")
    for repo in ("good", "gated", "broken", "pickle", "code", "encoder"):
        Hub.repos[f"acme/{repo}"] = Path(shutil.copytree(tiny, base / repo))
    (base / "good" / "consolidated.safetensors").write_bytes(b"twice the same")
    (base / "good" / "run_me.py").write_text("raise SystemExit")
    (base / "good" / "pytorch_model.bin").write_bytes(b"pickle")
    (base / "pickle" / "model.safetensors").rename(base / "pickle" / "pytorch_model.bin")
    change(base / "code", model_type="own", auto_map={"AutoModelForCausalLM": "own.Own"})
    change(base / "encoder", model_type="t5", is_encoder_decoder=True, architectures=None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield partial(fetch_from, f"http://127.0.0.1:{server.server_port}", base / "cache")
    server.shutdown()


def change(folder: Path, **values) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def fetch_from(endpoint: str, home: Path, *repos: str, **environment: str) -> list[dict]:
    done = python("-c", DRIVER, *repos, **{"HF_ENDPOINT": endpoint, "HF_HOME": str(home), **environment})
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_hub_model_arrives_with_progress_and_loads(hub):
    from engine.models.load import load_model

    [outcome] = hub("acme/good", HF_TOKEN="secret-of-the-owner", SPACE_ID="a/space")
    folder = Path(outcome["folder"])
    names = {file.name for file in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not names & {"run_me.py", "pytorch_model.bin", "consolidated.safetensors"}
    assert load_model(resolve("acme/good"), folder, planned("float32")).dtype.is_floating_point
    done, total, unit = outcome["told"][-1]
    assert done == total > 200_000 and unit == "B"
    assert not any("secret" in line for line in Hub.log)  # on a Space a visitor does not borrow the token


def test_a_damaged_copy_in_the_cache_is_fetched_again(hub):
    weights = Path(hub("acme/good")[0]["folder"]) / "model.safetensors"
    whole = weights.read_bytes()
    weights.resolve().write_bytes(whole[:1000])
    hub("acme/good")
    assert weights.read_bytes() == whole


def test_each_trouble_of_the_hub_has_its_sentence(hub):
    told = {
        "acme/gated": "is gated",
        "acme/missing": "has no model acme/missing",
        "acme/disabled": "has disabled acme/disabled",
        "acme/limited": "limits how often",
        "acme/down": "cannot be reached",
        "acme/pickle": "pickled weights only",
        "acme/code": "its own code",
        "acme/encoder": "encoder-decoder",
        "acme/broken": "was interrupted",
    }
    outcomes = dict(zip(told, hub(*told), strict=True))
    for repo, part in told.items():
        assert part in outcomes[repo].get("why", ""), (repo, outcomes[repo])
        assert one_sentence(outcomes[repo]["why"]) and outcomes[repo]["hint"]
    assert "HF_TOKEN" in outcomes["acme/gated"]["hint"] and "77 seconds" in outcomes["acme/limited"]["hint"]
    weights = [line for line in Hub.log if "model.safetensors" in line or "pytorch_model" in line]
    assert not any("acme/code" in line or "acme/encoder" in line or "acme/pickle" in line for line in weights)


def test_without_a_network_a_whole_copy_will_do_and_else_a_sentence(hub):
    hub("acme/good")
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))  # bound but not listening: every connection is refused
    nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
    kept, absent = fetch_from(nowhere, hub.args[1], "acme/good", "acme/elsewhere")
    assert Path(kept["folder"], "model.safetensors").is_file()
    assert "cannot be reached" in absent["why"] and "embedded model" in absent["hint"]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_too_small_is_a_sentence(hub, small_disk, monkeypatch):
    (small_disk / "ballast").write_bytes(b"0" * 950_000)
    [outcome] = hub("acme/good", HF_HOME=str(small_disk))
    assert "free" in outcome["why"] or "is full" in outcome["why"]
    assert "PITLANE_CACHE" in outcome["hint"]
    monkeypatch.setenv("PITLANE_CACHE", str(small_disk))
    with pytest.raises(Refusal, match=r"0\.5 GB are needed"):
        embedded.fetch_embedded()
