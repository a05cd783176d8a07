"""The report opens without a network, draws its charts, and shows what models and people wrote as text only."""

from pathlib import Path

import pytest

from components.report import report
from engine.export import entries
from engine.run.store import Store
from tests.engine.runs import experiment, keep
from tests.page.site import shot

EVIL = (
    "</script><script>window.hit = 1</script><img src=x onerror='window.hit = 2'><svg onload=alert(3)>"
    "'\" onmouseover=alert(4) <iframe src=http://127.0.0.1:9/></iframe><style>@import 'http://127.0.0.1:9/'</style>"
)
FOREIGN = """() => [...document.querySelectorAll('img, iframe, svg[onload], [onmouseover]')]
    .filter((node) => !node.closest('.js-plotly-plot')).length"""


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "history.db")


def write(store: Store, tmp_path: Path, *runs: str) -> Path:
    path = tmp_path / "report.html"
    path.write_text(report(entries(store, runs)), "utf-8")
    return path


def test_a_report_holds_everything_there_is(store, tmp_path):
    keep(store, "a" * 32, experiment("Does guessing pay?", rounds=8, opts={"prompt_lookup": {}}))
    text = report(entries(store, ["a" * 32]))
    result = store.run("a" * 32)["result"]
    for said in ("Does guessing pay?", "Time per token (TPOT)", "as fast as lane A", "lane.opts.prompt_lookup.guesses",
                 "word word word", "packages.torch", result["machine"]["processor"], "95 %"):  # fmt: skip
        assert said in text, said
    shown = {"name", "lane", "status", "why", "hint", "rounds", "metrics", "memory", "tokens", "text"}
    for key in result["lanes"][1].keys() - shown:
        value = result["lanes"][1][key]
        assert value in (None, {}, []) or key.replace("_", " ") in text or key in ("effective", "phases"), key


def test_what_a_later_version_measures_is_shown_too(store):
    keep(store, "a" * 32, experiment())
    (entry,) = entries(store, ["a" * 32])
    entry["result"]["lanes"][0] |= {"colour": {"of": {"noise": 0.123456}}, "cards": [{"sentence": "It is what it is."}]}
    text = report([entry])
    assert (
        "colour" in text
        and "of.noise" in text
        and "0.123456" in text
        and "<p class='card'>It is what it is.</p>" in text
    )


@pytest.mark.browser
def test_it_opens_offline_and_runs_nothing_but_its_own(chromium, store, tmp_path):
    """A real browser: no dialog, no request, no script of others, and every chart is drawn."""
    lane = {"name": "simulated", "ttft_ms": 1.0}
    made = experiment(EVIL[:200], backend=lane)
    keep(
        store,
        "a" * 32,
        made.model_copy(update={"why": EVIL, "lanes": {"<b>A": made.lanes["A"], "B": made.lanes["B"]}}),
        text=EVIL,
    )
    keep(store, "b" * 32, experiment("Another", opts={"prompt_lookup": {}}))
    path = write(store, tmp_path, "a" * 32, "b" * 32)
    heard: list[str] = []
    context = chromium.new_context(offline=True)
    page = context.new_page()
    page.on("dialog", lambda dialog: (heard.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on(
        "request", lambda asked: None if asked.url.startswith(("file:", "data:", "blob:")) else heard.append(asked.url)
    )
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("console", lambda said: heard.append(said.text) if said.type == "error" else None)
    page.goto(path.as_uri())
    page.wait_for_function("document.querySelectorAll('.chart .main-svg').length >= 6")
    assert heard == [] and page.evaluate("window.hit") is None
    assert page.evaluate(FOREIGN) == 0
    assert "onerror='window.hit = 2'" in page.inner_text("main")
    assert "Not interleaved: different runs" in page.inner_text("main")
    shot(page, "report")
    context.close()


@pytest.mark.browser
def test_a_script_that_slipped_in_would_not_run(chromium, store, tmp_path):
    """The policy is a second wall: without the escaping nothing runs either."""
    keep(store, "a" * 32, experiment())
    path = write(store, tmp_path, "a" * 32)
    path.write_text(path.read_text("utf-8").replace("<main>", f"<main>{EVIL}"), "utf-8")
    page = chromium.new_context().new_page()
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.on("requestfinished", lambda request: asked.append(request.url) if "127.0.0.1" in request.url else None)
    page.goto(path.as_uri())
    page.wait_for_selector(".chart .main-svg")
    assert asked == [] and page.evaluate("window.hit") is None
    page.context.close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_narrow_and_wide_in_light_and_dark(width, scheme, chromium, store, tmp_path):
    keep(store, "a" * 32, experiment("A title " * 20, rounds=8, opts={"prompt_lookup": {}}), text="longword" * 40)
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(write(store, tmp_path, "a" * 32).as_uri())
    page.wait_for_selector(".chart .main-svg")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    fits = "(one) => one.closest('.chart').clientWidth + 1 >= one.clientWidth"
    assert page.evaluate(f"[...document.querySelectorAll('.main-svg')].every({fits})")
    context.close()
