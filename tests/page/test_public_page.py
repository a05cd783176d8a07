"""A public page says what it allows, offers no more, and refuses the rest in a sentence; a Space is one by itself."""

import signal

import pytest

from tests.page.site import looks, start

pytestmark = pytest.mark.browser


@pytest.fixture
def public(tmp_path, chromium):
    running = start(tmp_path, PITLANE_PUBLIC="1")
    page = chromium.new_page(viewport={"width": 1440, "height": 900})
    page.goto(running.url)
    page.wait_for_selector("#run:not([disabled])")
    page.wait_for_selector(".stage[data-state=idle] .lane")
    yield page
    page.close()
    running.process.send_signal(signal.SIGKILL)
    running.process.wait()


def test_a_public_page_tells_its_limits_and_keeps_to_them(public):
    assert "This is a public server: models of the catalogue up to 2B" in public.inner_text("#limits")
    looks(public, "public")
    public.click("#model input")
    offered = public.eval_on_selector_all("#model [role=option]", "all => all.map((one) => one.innerText)")
    assert any("135" in name for name in offered) and not any("8B" in name or "gated" in name for name in offered)
    public.fill("#model input", "/etc")
    public.keyboard.press("Enter")
    public.wait_for_selector('#about:has-text("No model of this server\'s catalogue")')
    public.click("#run")
    public.wait_for_selector("#message:has-text('which runs models of its catalogue only, not')")
    public.click("#preset-demo-without-a-model")
    public.wait_for_selector(".stage .lane .badge.simulated")
    public.fill("#tokens input", "300")
    public.click("#run")
    public.wait_for_selector("#message:has-text('256 new tokens are the most, not 300')")
    public.fill("#tokens input", "6")
    public.click('#rounds label:has(input[value="1"])')
    public.click("#run")
    public.wait_for_selector(".stage[data-state=done]")
    looks(public, "public-done", to="#stage")


def test_a_space_whose_home_cannot_be_written_is_public_and_asks_nobody_else(tmp_path, chromium):
    space = {"SPACE_ID": "somebody/pitlane", "SPACE_HOST": "somebody-pitlane.hf.space", "SYSTEM": "spaces"}
    running = start(tmp_path, "--host", "127.0.0.1", PITLANE_CACHE="/proc/none", PYTHONUNBUFFERED="1", **space)
    page, foreign = chromium.new_page(), []
    page.on("request", lambda asked: None if asked.url.startswith(running.url) else foreign.append(asked.url))
    try:
        page.goto(running.url)
        page.wait_for_selector("#run:not([disabled])")
        assert "This is a public server" in page.inner_text("#limits")
        page.click("#preset-demo-without-a-model")
        page.wait_for_selector(".stage .lane .badge.simulated")
        page.fill("#tokens input", "6")
        page.click('#rounds label:has(input[value="1"])')
        page.click("#run")
        page.wait_for_selector(".stage[data-state=done]")
        assert [url for url in foreign if not url.startswith(("data:", "blob:"))] == []
        said = (tmp_path / "said").read_text()
        assert "/proc/none cannot be made" in said and "models are kept in" in said
    finally:
        page.close()
        running.process.kill()
        running.process.wait()
