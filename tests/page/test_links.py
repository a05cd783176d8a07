"""Links hold a setup and no secret; a log tells nobody where this machine's folders are; a bad link is one sentence."""

import asyncio
import base64
import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components import discretion, links
from components.page.racing import Logs
from engine.presets import presets
from engine.refusal import Refusal
from engine.run.jobs import Jobs
from engine.run.store import Store
from engine.spec import Experiment
from tests.engine.runs import experiment, keep

RUN = "a" * 32


def asked(experiment: Experiment) -> dict:
    return {key: value for key, value in experiment.to_dict().items() if key in links.KEPT}


def made(data, version: str = links.VERSION) -> str:
    text = data if isinstance(data, bytes) else json.dumps(data).encode()
    return version + base64.urlsafe_b64encode(zlib.compress(text)).decode().rstrip("=")


@pytest.mark.parametrize("name", list(presets()))
def test_every_preset_fits_into_a_link_and_comes_back(name):
    text = links.packed(presets()[name])
    assert text.replace("-", "").replace("_", "").isalnum() and len(text) <= links.LONGEST
    assert asked(links.unpacked(text)) == asked(presets()[name])


def test_prompts_come_along_in_any_language():
    given = experiment().model_copy(update={"title": "Trust me", "why": "Send money"})
    given = Experiment.read({**given.to_dict(), "workload": {"prompts": ["Grüße 🚀\n<b>&=?#", "二"], "chat": False}})
    back = links.unpacked(links.packed(given))
    assert back.workload == given.workload and (back.title, back.why) == ("", "")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "another version"),
        ("2abc", "another version"),
        ("1", "broken"),
        ("1€", "broken"),
        ("1abc!", "broken"),
        (links.packed(experiment())[:-20], "broken"),
        (made([1]), "broken"),
        (made(b"[" * 100_000), "broken"),
        (made(b'"' + b"a" * 5_000_000 + b'"'), "broken"),
        ("1" + "a" * 9_000, "longer than any"),
        (made({"lanes": {"A": {}}}), "does not know: workload"),
        (made({**asked(experiment()), "lanes": {"A": {"opts": {"warp": {}}}}}), "does not know: .*'warp'"),
    ],
)
def test_a_bad_link_is_one_sentence(text, says):
    with pytest.raises(Refusal, match=says):
        links.unpacked(text)


def test_a_setup_that_is_too_long_says_what_to_do():
    noise = "".join(chr(0x4E00 + place * 7919 % 20_000) for place in range(20_000))
    given = Experiment.read({"workload": {"prompts": [noise]}, "lanes": {"A": {}}})
    with pytest.raises(Refusal, match=r"its prompts have 20,000 characters\. Run it and copy the link to the run"):
        links.packed(given)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A model's folder, as far as its code needs it."""
    folder = tmp_path / "of-somebody" / 'my "own" model'
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").touch()
    return folder


def test_a_link_calls_a_folder_by_its_name(folder):
    given = experiment(opts={"draft_model": {"model": f"{folder}/"}}).model_copy(update={"model": str(folder)})
    shown = discretion.nameless(given)
    assert (shown.model, shown.lanes["B"].opts["draft_model"].model) == ('./my "own" model',) * 2
    assert "of-somebody" not in json.dumps(links.unpacked(links.packed(shown)).to_dict())
    assert discretion.nameless(experiment()) == experiment()


def test_no_log_tells_owner_folder_or_environment(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody")
    store = Store(tmp_path / "history.db")
    given = experiment(rounds=2, opts={"prompt_lookup": {}}).model_copy(update={"model": str(folder)})
    keep(store, RUN, given, "owner-of-somebody", text=f"in {Path.home()}/x ")
    jobs = Jobs(store)
    logs = Logs(jobs)

    async def followed() -> str:
        return "".join([part async for part in logs.stream(RUN)])

    with ThreadPoolExecutor(1) as aside:  # a browser of another test may have a loop in this thread
        live = aside.submit(lambda: asyncio.run(followed())).result()
    for log in (logs.recorded(RUN), logs.recorded(RUN, paced=False), live):
        assert "of-somebody" not in log and "of_somebody" not in log and str(tmp_path) not in log
        assert f"{Path.home()}/x" not in log and "in ~/x" not in log and "in …/x" in log
        assert "from_pretrained" in log and r"my \"own\" model" in log, "the code is there, with the folder's name"
        assert all(json.loads(line)["kind"] for line in log.splitlines())
    jobs.close()


def test_text_without_a_folder_stays_as_it_is():
    veil = discretion.discreet(experiment())
    for text in ("a/b", "the root of it", f"{Path.home()}ward", "http://x/y", f"x{Path.home()}/y"):
        assert veil(text) == text
