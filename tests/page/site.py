"""The app in a process of its own, and pictures of its page."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Site:
    """A served page: its address and its process."""

    url: str
    process: subprocess.Popen


def start(home: Path, *options: str, program: str = "app.py", **environment: str) -> Site:
    """Start app.py on a free port and wait until it answers. With `options` what it prints goes to `home`/said."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {**os.environ, "PITLANE_HOME": str(home), "PITLANE_SIMULATED": "1", "HF_HUB_OFFLINE": "1", **environment}
    said = (home / "said").open("w") if options else None
    command = [sys.executable, program, "--port", str(port), *options]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=said)
    site = Site(f"http://127.0.0.1:{port}", process)
    for _ in range(600):
        try:
            urllib.request.urlopen(site.url, timeout=5).close()
            return site
        except OSError:
            assert process.poll() is None, "app.py ended before it served the page"
            time.sleep(0.1)
    raise AssertionError("app.py did not serve the page within a minute")


LOOKS = {"light-1440": (1440, 900), "dark-1440": (1440, 900), "light-390": (390, 844), "dark-390": (390, 844)}
WIDE = {"light-2560": (2560, 1440)}
REACH = """one => one.getBoundingClientRect().top > innerHeight / 2 &&
  one.scrollIntoView({ block: "start", behavior: "instant" })"""
SETTLE_MS = 150
"""Charts take their new size a moment after the window has."""


def shot(page, name: str) -> None:
    """Keep a picture of the page as it is, to be looked at."""
    folder = ROOT / "tests" / "shots"
    folder.mkdir(exist_ok=True)
    page.screenshot(path=folder / f"{name}.png")


def looks(page, name: str, to: str = "", **further: tuple[int, int]) -> None:
    """The same in light and dark, on a desk and in a hand, with `to` in sight; `further` sizes by theme and width."""
    before = page.viewport_size, page.evaluate("document.body.classList.contains('dark')")
    for look, (width, height) in {**LOOKS, **further}.items():
        page.set_viewport_size({"width": width, "height": height})
        _theme(page, look.startswith("dark"))
        page.wait_for_timeout(SETTLE_MS)
        page.evaluate("window.scrollTo({ top: 0, behavior: 'instant' })")
        if to:
            page.locator(to).first.evaluate(REACH)
        shot(page, f"{name}-{look}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} scrolls sideways at {width}"
    page.set_viewport_size(before[0])
    _theme(page, before[1])


def _theme(page, dark: bool) -> None:
    page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", dark)
