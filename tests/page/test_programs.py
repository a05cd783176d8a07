"""Programs start runs and read what they say by plain HTTP, as curl does, and by the Model Context Protocol."""

import asyncio
import http.client
import json
import signal
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from mcp import Client

from engine.event import Finished, Record
from tests.page.site import start

LANES = {"A": {"backend": "simulated"}, "B": {"backend": {"name": "simulated", "tpot_ms": 2}}}
EXPERIMENT = {"rounds": 1, "workload": {"prompts": "one", "max_new_tokens": 6}, "lanes": LANES}
PLAIN = {"Content-Type": "application/json"}


def asked(site, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Status and body of a POST, or of a GET where there is no body."""
    line = http.client.HTTPConnection(urlsplit(site.url).netloc, timeout=60)
    line.request("GET" if body is None else "POST", path, body, {**(PLAIN if body else {}), **headers})
    answer = line.getresponse()
    return answer.status, answer.read()


def test_a_program_starts_a_run_reads_its_events_and_its_result(site):
    status, body = asked(site, "/pitlane/experiments", json.dumps(EXPERIMENT).encode())
    started = json.loads(body)
    assert status == 202 and started["events"] == f"/pitlane/runs/{started['run']}/events"
    status, body = asked(site, started["events"])
    records = [Record.parse(line) for line in body.decode().splitlines()]
    assert status == 200 and {record.lane for record in records} == {0, 1}
    assert sum(isinstance(record.event, Finished) and record.round == 0 for record in records) == 2
    status, body = asked(site, started["result"])
    found = json.loads(body)
    assert (status, found["state"], found["position"]) == (200, "finished", 0)
    assert [lane["status"] for lane in found["result"]["lanes"]] == ["finished", "finished"]
    status, body = asked(site, started["log"])
    assert status == 200 and body.startswith(b"data: ")


def test_events_stream_while_the_run_goes_on(site):
    slow = {**EXPERIMENT, "lanes": {"A": {"backend": {"name": "simulated", "tpot_ms": 100}}}}
    slow["workload"] = {"prompts": "one", "max_new_tokens": 40}
    run = json.loads(asked(site, "/pitlane/experiments", json.dumps(slow).encode())[1])
    line = http.client.HTTPConnection(urlsplit(site.url).netloc, timeout=60)
    line.request("GET", run["events"])
    answer = line.getresponse()
    first = Record.parse(answer.readline().decode())
    state = json.loads(asked(site, run["result"])[1])
    assert first.lane == 0 and state["state"] == "running" and state["result"] is None
    assert isinstance(Record.parse(answer.read().decode().splitlines()[-1]).event, Finished)


HERE = json.dumps(EXPERIMENT).encode()
BAD = [
    (HERE, {"Content-Type": "text/plain"}, 415, "as JSON"),
    (b'{"a": "' + b"x" * 300_000 + b'"}', {}, 413, "256 KB"),
    (b"no json", {}, 400, "not JSON"),
    (b"[]", {}, 400, ""),
    (json.dumps({**EXPERIMENT, "rounds": 0}).encode(), {}, 400, "greater than or equal to 1"),
    (HERE, {"Origin": "http://elsewhere.example"}, 403, "another site"),
    (HERE, {"Sec-Fetch-Site": "cross-site"}, 403, "another site"),
]


@pytest.mark.parametrize(("body", "headers", "status", "says"), BAD)
def test_a_bad_request_gets_a_sentence(site, body, headers, status, says):
    found, answer = asked(site, "/pitlane/experiments", body, **headers)
    assert found == status and says in json.loads(answer)["error"]


@pytest.mark.parametrize("what", ["events", "result"])
def test_a_run_that_is_not_there(site, what):
    status, body = asked(site, f"/pitlane/runs/{'0' * 32}/{what}")
    assert status == 404 and "no such run" in json.loads(body)["error"]


def test_an_assistant_experiments_over_http(site):
    async def held():
        async with Client(f"{site.url}/mcp") as client:
            return await client.call_tool("run_experiment", {"experiment": EXPERIMENT})

    with ThreadPoolExecutor(1) as aside:
        answer = aside.submit(lambda: asyncio.run(held())).result()
    assert not answer.is_error and answer.structured_content["state"] == "finished"
    status, body = asked(site, "/mcp", b"{}", Origin="http://elsewhere.example")
    assert status == 403 and "another site" in json.loads(body)["error"]


def test_a_public_server_counts_the_programs_of_an_address(tmp_path):
    public = start(tmp_path, PITLANE_PUBLIC="1")
    try:
        long = {**EXPERIMENT, "rounds": 9}
        assert asked(public, "/pitlane/experiments", json.dumps(long).encode())[0] == 400
        found = [asked(public, "/pitlane/experiments", HERE)[0] for _ in range(13)]
        assert found == [202] * 12 + [429]
        status, body = asked(public, "/mcp", json.dumps(_call()).encode(), Accept="application/json, text/event-stream")
        assert status == 200 and "12 runs in 10 minutes" in body.decode()
    finally:
        public.process.send_signal(signal.SIGKILL)
        public.process.wait()


def _call() -> dict:
    params = {"name": "run_experiment", "arguments": {"experiment": EXPERIMENT}}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
