"""Thirty pages watch one run of a known timetable: its figures are within 2 %, and every page sees all of it."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.page.racing import Logs
from engine.run.jobs import Jobs
from engine.run.store import Store
from engine.spec import Experiment

PAGES, ROUNDS, TOKENS, BURST = 30, 3, 41, 5
TTFT_MS, STEP_MS = 400.0, 100.0
STEPS = (TOKENS - 1) // BURST
"""After the first token, which comes alone."""
TRUE = {
    "ttft_ms": TTFT_MS,
    "tpot_ms": STEP_MS / BURST,
    "e2e_ms": TTFT_MS + STEPS * STEP_MS,
    "output_tok_per_s": 1000 * TOKENS / (TTFT_MS + STEPS * STEP_MS),
    "prefill_tok_per_s": 1000 * 4 / TTFT_MS,
    "itl_p50_ms": STEP_MS / BURST,
}


@pytest.fixture
def jobs(tmp_path):
    jobs = Jobs(Store(tmp_path / "history.db"))
    yield jobs
    jobs.close()


async def watch(logs: Logs, run: str) -> str:
    log = ""
    async for grown in logs.follow(run):
        log += grown
    return log


async def all_of_them(logs: Logs, run: str) -> list[str]:
    return await asyncio.gather(*(watch(logs, run) for _ in range(PAGES)))


def test_watching_changes_no_figure_and_every_page_sees_all(jobs):
    backend = {"name": "simulated", "ttft_ms": TTFT_MS, "tpot_ms": STEP_MS, "burst": BURST}
    workload = {"prompts": "one two three four", "max_new_tokens": TOKENS}
    lanes = {"A": {"backend": backend}}
    run = jobs.submit(Experiment.read({"rounds": ROUNDS, "workload": workload, "lanes": lanes}), "me")
    with ThreadPoolExecutor(1) as aside:  # a browser of another test may have a loop in this thread
        logs = aside.submit(lambda: asyncio.run(all_of_them(Logs(jobs), run))).result()
    lane = jobs.result(run)["lanes"][0]
    for name, value in TRUE.items():
        assert lane["metrics"][name] == pytest.approx(value, rel=0.02), name
    assert [one["output_tokens"] for one in lane["rounds"]] == [TOKENS] * ROUNDS
    assert [one["steps"] for one in lane["rounds"]] == [STEPS + 1] * ROUNDS and len(lane["tokens"][0]) == TOKENS
    for log in logs:
        lines = [json.loads(line) for line in log.splitlines()]
        assert lines[0]["kind"] == "start" and lines[-1]["kind"] == "end"
        assert lines[-1]["lanes"][0]["status"] == "finished"
