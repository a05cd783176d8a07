"""The page's engine for programs, through gradio_client, over real HTTP."""

import json
import re
import signal
from itertools import pairwise
from pathlib import Path

import pytest
from gradio_client import Client

EXPERIMENT = {
    "rounds": 1,
    "workload": {"prompts": "one", "max_new_tokens": 6},
    "lanes": {"A": {"backend": "simulated"}, "B": {"backend": "simulated"}},
}


def test_the_api_yields_a_log_that_only_grows(site):
    job = Client(site.url, verbose=False).submit(json.dumps(EXPERIMENT), api_name="/run")
    logs = list(job)
    assert all(later.startswith(earlier) for earlier, later in pairwise(logs))
    lines = [json.loads(text) for text in logs[-1].splitlines()]
    assert lines[0]["kind"] == "start" and lines[-1]["kind"] == "end" and lines[-1]["state"] == "done"
    ticks = [line["lanes"].get("0", {}) for line in lines if line["kind"] == "tick"]
    turns = "".join("|" * tick.get("reset", False) + "".join(p[1] for p in tick.get("text", [])) for tick in ticks)
    assert {turn.strip().lower() for turn in turns.split("|")[1:]} == {"the quick lane takes the corner"}


def bent(**workload) -> str:
    return json.dumps({**EXPERIMENT, "workload": {**EXPERIMENT["workload"], **workload}})


BAD = [
    ('{"lanes": {}}', "workload"),
    ("no JSON", "Expecting value"),
    (json.dumps({**EXPERIMENT, "rounds": 0}), "greater than or equal to 1"),
    (json.dumps({**EXPERIMENT, "lanes": {name: {"backend": "simulated"} for name in "ABCDE"}}), "at most 4"),
    (json.dumps({**EXPERIMENT, "lanes": {"A": {}}, "model": "no-such-model"}), "no-such-model"),
    *((bent(max_new_tokens=wrong), "max_new_tokens") for wrong in (0, -1, 2.5, True, float("nan"), 1e400, "8")),
    (bent(temperature=float("nan")), "finite"),
    (bent(prompts=[" "]), "A prompt is empty"),
]


@pytest.mark.parametrize(("bad", "says"), BAD)
def test_the_api_refuses_with_a_sentence(site, bad, says):
    with pytest.raises(Exception, match=says) as refusal:
        Client(site.url, verbose=False).submit(bad, api_name="/run").result()
    assert "Traceback" not in str(refusal.value)


def test_only_the_run_is_public(site):
    api = Client(site.url, verbose=False).view_api(return_format="dict", print_info=False)
    assert list(api["named_endpoints"]) == ["/run"]


def test_the_web_process_holds_no_torch_and_ends_clean(own_site):
    list(Client(own_site.url, verbose=False).submit(json.dumps(EXPERIMENT), api_name="/run"))
    process = Path(f"/proc/{own_site.process.pid}")
    if process.exists():
        assert "libtorch" not in (process / "maps").read_text()
        resident = int(re.search(r"VmRSS:\s+(\d+)", (process / "status").read_text())[1])
        assert resident <= 400 * 1024
    own_site.process.send_signal(signal.SIGTERM)
    assert own_site.process.wait(timeout=20) in (0, -signal.SIGTERM)
