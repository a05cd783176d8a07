"""`python -m tests.page.film`: the README's pictures, from a real race in a real browser."""

import io
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests.page.conftest import CHROMIUM, FLAGS
from tests.page.site import ROOT, start

SIZE = {"width": 1440, "height": 900}
SHOWN = (1080, 675)
HOLD_MS = 2600
LEAST_MS = 60
PLACE = ROOT / "components" / "static"
PICTURES = ("race.png", "race-dark.png", "race.webp")


def frame(page: Page) -> Image.Image:
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB").resize(SHOWN, Image.Resampling.LANCZOS)


def race(page: Page) -> None:
    """The experiment that the page opens with, to its verdict; then its replay is at the beginning."""
    page.wait_for_selector("#run:not([disabled])")
    page.click("#run")
    page.wait_for_selector(".stage[data-state=done]", timeout=300_000)
    page.wait_for_selector(".stage .compare")
    page.mouse.move(0, 0)


def pictures(page: Page) -> None:
    """The end of the race in light and in dark."""
    for name, dark in (("race.png", False), ("race-dark.png", True)):
        page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", dark)
        page.wait_for_timeout(500)  # charts are drawn anew in the other colours
        page.screenshot(path=PLACE / name)
    page.evaluate("document.body.classList.remove('dark')")


def replay(page: Page) -> tuple[list[Image.Image], list[int]]:
    """Frames of the typical rounds on one clock, and how long each was on the screen: the film runs at real speed."""
    page.click("[data-action=again]")
    page.wait_for_selector(".stage[data-state=running]")
    frames, times = [], []
    while page.get_attribute(".stage", "data-state") == "running":
        frames.append(frame(page))
        times.append(time.monotonic())
        page.wait_for_timeout(LEAST_MS)
    lengths = [max(LEAST_MS, round(1000 * (after - before))) for before, after in pairwise([*times, time.monotonic()])]
    return [*frames, frame(page)], [*lengths, HOLD_MS]


def main() -> int:
    site = start(Path(tempfile.mkdtemp()), PITLANE_SIMULATED="0")
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page(viewport=SIZE, color_scheme="light")
            page.goto(site.url)
            race(page)
            pictures(page)
            (first, *rest), lengths = replay(page)
            film = {"save_all": True, "append_images": rest, "duration": lengths, "loop": 0}
            first.save(PLACE / "race.webp", quality=70, method=6, **film)
            browser.close()
    finally:
        site.process.terminate()
    for name in PICTURES:
        print(f"{name}: {(PLACE / name).stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
