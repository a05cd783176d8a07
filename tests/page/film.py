"""`python -m tests.page.film`: the README's pictures, from a real race in a real browser."""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests.page.conftest import CHROMIUM, FLAGS
from tests.page.site import ROOT, start

SIZE = {"width": 1440, "height": 900}
SHOWN = (1080, 675)
FRAME_MS, HOLD_MS = 120, 2600
PLACE = ROOT / "components" / "static"


def frame(page: Page) -> Image.Image:
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB").resize(SHOWN, Image.Resampling.LANCZOS)


def race(page: Page) -> None:
    """The experiment that the page opens with, to its verdict; then its replay is at the beginning."""
    page.wait_for_selector("#run:not([disabled])")
    page.click("#run")
    page.wait_for_selector(".stage[data-state=done]", timeout=300_000)
    page.wait_for_selector(".stage .compare")


def replay(page: Page) -> list[Image.Image]:
    """Frames of the typical rounds on one clock, as they are on the screen, to the end."""
    frames = [frame(page)]
    page.click("[data-action=again]")
    page.wait_for_selector(".stage[data-state=running]")
    while page.get_attribute(".stage", "data-state") == "running":
        frames.append(frame(page))
        page.wait_for_timeout(FRAME_MS // 2)
    return [*frames[1:], frame(page)]


def main() -> int:
    site = start(Path(tempfile.mkdtemp()), PITLANE_SIMULATED="0")
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page(viewport=SIZE)
            page.goto(site.url)
            race(page)
            page.screenshot(path=PLACE / "race.png")
            first, *rest = replay(page)
            lengths = [FRAME_MS] * len(rest) + [HOLD_MS]
            film = {"save_all": True, "append_images": rest, "duration": lengths, "loop": 0}
            first.save(PLACE / "race.webp", quality=70, method=6, **film)
            browser.close()
    finally:
        site.process.terminate()
    for name in ("race.png", "race.webp"):
        print(f"{name}: {(PLACE / name).stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
