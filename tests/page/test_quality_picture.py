"""The picture of quality: a row for each lane, its figures from one table, and where they are from an earlier run."""

from components.quality import of
from components.summary import summary
from engine.console import table
from engine.event import Finished, Judged, Record, Request, Step
from engine.measure.machine import machine
from engine.measure.quality import FIGURES
from engine.measure.result import result
from engine.spec import Experiment

TEXT = {"kl_mean": 0.27, "kl_p99": 1.1, "top1": 0.66, "perplexity_ratio": 1.31, "tokens": 2042, "read": 0.0}
PROMPT = {**TEXT, "kl_mean": 2e-5, "kl_p99": None, "tokens": 24}
REFERENCE = "the unquantized model in float32"


def finished(quality: dict, lanes: tuple[str, ...] = ("A", "B"), prompts: int = 1) -> dict:
    """A run of one round in which the second lane got this quality and wrote another third token."""
    work = {"prompts": ["x"] * prompts, "max_new_tokens": 4}
    wanted = Experiment.read({"rounds": 1, "workload": work, "lanes": {name: {} for name in lanes}})
    records = []
    for lane in range(len(lanes)):
        events = [Request(0.0, request, 2) for request in range(prompts)]
        for place, word in enumerate(("one ", "🙂 ", f"{lane} ", "end")):
            token = place + 10 * lane * (place == 2)
            events += [Step(0.1 + place, (request,), ((token,),), ((word,),)) for request in range(prompts)]
        records += [Record(lane, 0, event) for event in (*events, Finished(9.0))]
    records.append(Record(1, None, Judged(10.0, {"quality": {"reference": REFERENCE, **quality}})))
    return result(wanted, machine().to_dict(), records)


def test_each_lossy_lane_has_its_figures_and_the_others_none():
    drawn = of(finished({"text": TEXT, "prompt": PROMPT}))
    assert drawn["lanes"][0] is None and REFERENCE in drawn["sentence"]
    text, prompt = drawn["lanes"][1]["parts"]
    assert text["title"].startswith("2,042 tokens of the opening") and prompt["title"].startswith("24 tokens of this")
    assert [row["value"] for row in text["rows"]] == [0.27, 1.1, 66.0, 1.31]
    assert prompt["kl_p99"] is None and drawn["lanes"][1]["read"] is None


def test_an_earlier_reading_says_so():
    drawn = of(finished({"text": {**TEXT, "earlier": True, "read": 1_760_000_000.0}, "prompt": PROMPT}))
    assert drawn["lanes"][1]["read"] == "09 October 2025"


def test_what_could_not_be_read_says_why_and_a_lossless_run_has_no_picture():
    assert of(finished({"why": "It needs 9 GB."}))["lanes"][1] == {"why": "It needs 9 GB."}
    assert of({"lanes": [{"quality": None}]}) is None


def test_speed_stands_beside_quality_in_both_tables_and_in_the_sentence():
    found = finished({"text": TEXT})
    rows = {row["key"]: row for row in summary(found, "done")["rows"]}
    assert [rows[row.name]["cells"][1]["value"] for row in FIGURES] == [0.27, 1.1, 66.0, 1.31]
    assert all(rows[row.name]["cells"][0]["value"] is None and rows[row.name]["tip"] for row in FIGURES)
    printed = table(found)
    assert "| KL divergence, nats" in printed and "| Same next token, %" in printed and " 66 " in printed
    assert price_in(found) and "0.27 nats" in printed


def price_in(found: dict) -> bool:
    return any("prefers the same next token at 66 % of positions" in v["sentence"] for v in found["verdicts"])


def test_where_a_text_parts_is_known_to_the_character():
    lane = summary(finished({"text": TEXT}, prompts=2), "done")["lanes"][1]
    assert lane["parted"] == [{"token": 2, "character": len("one 🙂 ")}] * 2
    assert lane["fate"] == "Their texts part at token 3."
    assert summary(finished({"text": TEXT}), "done")["lanes"][0]["parted"] is None
