"""The page under load: how soon a line is on the screen, what thirty viewers cost, what ten minutes leave behind."""

import http.client
import json
import tempfile
import threading
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from urllib.parse import urlsplit

import psutil

from components.links import packed
from engine.bench.measuring import heading, line
from engine.run.pool import Pool
from engine.spec import Experiment
from tests.page.conftest import CHROMIUM, FLAGS
from tests.page.site import Site, start

VIEWERS = 30
TOKENS = 2000
MINUTES, LOOK_S = 10, 30
ROUND_S = 44  # what a round of all four lanes takes
LANES = {
    name: {"backend": {"name": "simulated", "ttft_ms": 50.0, "tpot_ms": tpot}}
    for name, tpot in zip("ABCD", (4.0, 5.0, 6.0, 7.0), strict=True)
}
ARRIVALS = """
window.arrived = new Map();
window.EventSource = class extends EventSource {
  constructor(...where) {
    super(...where);
    this.addEventListener("message", ({ data }) => {
      for (const [lane, delta] of Object.entries(JSON.parse(data).lanes ?? {}))
        if (delta.tokens) window.arrived.set(`${lane}:${delta.tokens}`, performance.now());
    });
  }
};"""
"""Notes when a count of tokens arrives in the page, before the page hears of it."""
LAG = """() => {
  window.lags = [];
  [...document.querySelectorAll("#stage .lane")].forEach((card, lane) => new MutationObserver(() => {
    const key = `${lane}:${parseInt(card.querySelector(".lap").textContent)}`;
    if (window.arrived.has(key)) window.lags.push(performance.now() - window.arrived.get(key));
    window.arrived.delete(key);
  }).observe(card.querySelector(".lap"), { childList: true, characterData: true, subtree: true }));
}"""
"""Notes when it is on the screen."""


def run(pool: Pool, rounds: int, model: str, only: list[str]) -> dict[str, Any]:
    """Four simulated lanes of 2,000 tokens each; `only`: lag, viewers or memory."""
    kept: dict[str, Any] = {}
    site = start(Path(tempfile.mkdtemp()))
    try:
        for name, measure in {"lag": lag, "viewers": viewers, "memory": memory}.items():
            if not only or name in only:
                kept[name] = measure(site)
    finally:
        site.process.terminate()
    return kept


def experiment() -> dict[str, Any]:
    return {"rounds": 1, "workload": {"prompts": ["go"], "max_new_tokens": TOKENS}, "lanes": LANES}


def lag(site: Site) -> dict[str, float]:
    """Milliseconds from a line's arrival in the browser to its figures on the screen, and the browser's heap."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = _racing(browser, site, 1)
        page.evaluate(LAG)
        page.wait_for_selector(".stage[data-state=done]", timeout=300_000)
        lags = page.evaluate("window.lags")
        browser.close()
    found = {"lines": len(lags), "p50": median(lags), "p95": quantiles(lags, n=20)[-1]}
    print(heading("lines", "lag p50, ms", "lag p95, ms"))
    print(line(str(found["lines"]), f"{found['p50']:.0f}", f"{found['p95']:.0f}"))
    return found


def _racing(browser: Any, site: Site, rounds: int) -> Any:
    """The page on which the experiment runs."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.add_init_script(ARRIVALS)
    page.goto(f"{site.url}/?lanes={packed(Experiment.read({**experiment(), 'rounds': rounds}))}")
    page.wait_for_selector("#message:has-text('came with the link')")
    page.click("#run:not([disabled])")
    page.wait_for_selector(".stage[data-state=running]")
    return page


def memory(site: Site) -> dict[str, list[float]]:
    """The browser's heap after its garbage is collected, its nodes and its listeners, while a race goes on for long."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = _racing(browser, site, -(-60 * MINUTES // ROUND_S))
        tools = page.context.new_cdp_session(page)
        tools.send("Performance.enable")
        seen = [_held(page, tools) for _ in range(60 * MINUTES // LOOK_S + 1)]
        browser.close()
    print(heading("minute", "heap, MB", "nodes", "listeners"))
    for place, (heap, nodes, listeners) in enumerate(seen):
        print(line(f"{place * LOOK_S / 60:.1f}", f"{heap:.1f}", str(nodes), str(listeners)))
    return {"heap_mb": [heap for heap, *_ in seen]}


def _held(page: Any, tools: Any) -> tuple[float, int, int]:
    """Heap in MB, nodes and listeners, half a minute after the last look."""
    page.wait_for_timeout(1000 * LOOK_S)
    tools.send("HeapProfiler.collectGarbage")
    found = {one["name"]: one["value"] for one in tools.send("Performance.getMetrics")["metrics"]}
    return found["JSHeapUsedSize"] / 1e6, int(found["Nodes"]), int(found["JSEventListeners"])


def viewers(site: Site) -> dict[str, float]:
    """Share of one core that the server takes while so many read one run's log, and without any."""
    shares = {count: _watched(site, count) for count in (0, VIEWERS)}
    print(heading("viewers", "server, share of one core"))
    for count, share in shares.items():
        print(line(str(count), f"{share:.0%}"))
    return {str(count): share for count, share in shares.items()}


def _watched(site: Site, count: int) -> float:
    run = _submit(site)
    server = psutil.Process(site.process.pid)
    readers = [threading.Thread(target=_read, args=(site, run)) for _ in range(count)]
    began, spent = time.monotonic(), sum(server.cpu_times()[:2])
    for reader in readers:
        reader.start()
    _read(site, run)
    return (sum(server.cpu_times()[:2]) - spent) / (time.monotonic() - began)


def _submit(site: Site) -> str:
    """Start a run as a program does; its first line names it."""
    from gradio_client import Client

    job = Client(site.url, verbose=False).submit(json.dumps(experiment()), api_name="/run")
    return json.loads(next(iter(job)).splitlines()[0])["run"]


def _read(site: Site, run: str) -> None:
    where = urlsplit(site.url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=120)
    connection.request("GET", f"/pitlane/runs/{run}/log?replay=")
    answer = connection.getresponse()
    while answer.readline():
        pass
