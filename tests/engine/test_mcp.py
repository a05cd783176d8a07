"""An assistant does an experiment by itself: the tools, asked by the package's own client."""

import asyncio
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from mcp import Client, StdioServerParameters

from engine.mcp import Tools
from engine.run.jobs import Jobs
from engine.run.store import Store
from engine.spec import Experiment
from tests.engine.processes import ROOT, python

SLOW, FAST = ({"backend": {"name": "simulated", "ttft_ms": 5, "tpot_ms": ms}} for ms in (8, 2))
EXPERIMENT = {
    "rounds": 6,
    "workload": {"prompts": ["go on"], "max_new_tokens": 12},
    "lanes": {"A": SLOW, "B": FAST},
}


@pytest.fixture
def jobs(tmp_path):
    jobs = Jobs(Store(tmp_path / "history.db"))
    yield jobs
    jobs.close()


def talk(server, conversation):
    """Hold a conversation in a thread of its own: a browser of another test may have a loop in this one."""

    async def held():
        async with Client(server) as client:
            return await conversation(client)

    with ThreadPoolExecutor(1) as aside:
        return aside.submit(lambda: asyncio.run(held())).result()


async def told(client: Client, tool: str, **arguments):
    answer = await client.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    return answer.structured_content


async def experiment(client: Client) -> dict:
    """What an assistant would do, one thing after another."""
    names = [tool.name for tool in (await client.list_tools()).tools]
    options = await told(client, "list_optimizations", group="speculation")
    models = await told(client, "list_models")
    forecast = await told(client, "estimate", experiment={**EXPERIMENT, "lanes": {"A": {}, "B": SLOW}})
    steps = []

    async def progress(done, total, message):
        steps.append((done, total, message))

    answer = await client.call_tool("run_experiment", {"experiment": EXPERIMENT}, progress_callback=progress)
    run = answer.structured_content
    why = await told(client, "explain_result", run=run["run"])
    return {"names": names, "options": options, "models": models, "forecast": forecast, "run": run, "why": why,
            "steps": steps, "manner": client.instructions}  # fmt: skip


def check(found: dict) -> None:
    wanted = ["list_optimizations", "list_models", "estimate", "run_experiment", "explain_result"]
    assert found["names"] == wanted and "list_optimizations" in found["manner"]
    lookup = next(one for one in found["options"]["optimizations"] if one["name"] == "prompt_lookup")
    assert lookup["knobs"]["guesses"]["maximum"] == 16 and "prompt" in lookup["lesson"] and not lookup["unavailable"]
    assert {one["group"] for one in found["options"]["optimizations"]} == {"speculation"}
    assert any(model["default"] for model in found["models"]["models"])
    assert found["forecast"]["lanes"]["A"]["needed_bytes"] > 5e8 and "why" in found["forecast"]["lanes"]["B"]
    assert found["run"]["state"] == "finished" and "Lane B is" in found["run"]["verdict"]
    assert "| " in found["run"]["table"] and found["run"]["lanes"]["B"]["metrics"]["tpot_ms"] < 4
    assert found["why"]["verdict"] == found["run"]["verdict"] and "findings" in found["why"]["lanes"]["A"]
    done = [step[0] for step in found["steps"]]
    assert done == sorted(done) and found["steps"][-1][1] == 12 and any("turns" in step[2] for step in found["steps"])


def test_an_assistant_does_an_experiment_by_itself(jobs):
    check(talk(Tools(jobs, lambda: "me").server, experiment))
    assert jobs.history("me")[0]["state"] == "finished"


def test_the_command_line_serves_the_same_on_standard_input(tmp_path):
    command = {"command": sys.executable, "args": ["-m", "engine", "mcp"], "cwd": str(ROOT)}
    server = StdioServerParameters(**command, env={**os.environ, "PITLANE_HOME": str(tmp_path)})
    check(talk(server, experiment))


def test_without_the_package_one_sentence_says_what_to_install(tmp_path):
    (tmp_path / "mcp").mkdir()
    (tmp_path / "mcp" / "__init__.py").touch()
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = python("-m", "engine", "mcp", PYTHONPATH=path, PITLANE_HOME=str(tmp_path))
    assert done.returncode == 2 and "pip install mcp" in done.stderr and "Traceback" not in done.stderr
    checked = "import app; from engine.mcp import installed; print(installed())"
    assert python("-c", checked, PYTHONPATH=path).stdout.split() == ["False"]


BAD = [
    ("run_experiment", {"experiment": {"lanes": {}}}, "workload"),
    ("run_experiment", {"experiment": {**EXPERIMENT, "model": "nowhere", "lanes": {"A": {}}}}, "no model 'nowhere'"),
    ("estimate", {"experiment": {**EXPERIMENT, "lanes": {"A": {"opts": {"wings": {}}}}}}, "no optimization 'wings'"),
    ("explain_result", {"run": "0" * 32}, "no run"),
    ("list_optimizations", {"group": "magic"}, "There are"),
]


@pytest.mark.parametrize(("tool", "arguments", "says"), BAD)
def test_bad_input_is_a_sentence_for_the_assistant(jobs, tool, arguments, says):
    answer = talk(Tools(jobs, lambda: "me").server, lambda client: client.call_tool(tool, arguments))
    assert answer.is_error and says in answer.content[0].text and "Traceback" not in answer.content[0].text


def test_public_limits_hold_here_too(jobs, monkeypatch):
    monkeypatch.setenv("PITLANE_PUBLIC", "1")
    tools = Tools(jobs, lambda: "me")
    long = {**EXPERIMENT, "rounds": 9}
    answer = talk(tools.server, lambda client: client.call_tool("run_experiment", {"experiment": long}))
    assert answer.is_error and "8 rounds are the most" in answer.content[0].text
    models = tools.list_models()
    assert "qwen3-8b" not in [model["name"] for model in models["models"]] and "public server" in models["limits"]
    assert all(Experiment.read(one["experiment"]) for one in models["questions"]) and json.dumps(models)
