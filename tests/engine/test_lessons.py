"""Every lesson's file holds what it promises; a guess is marked by what was measured; a bad file is one sentence."""

from itertools import pairwise

import pytest

from engine.lessons import FOLDER, Lesson, lesson, lessons
from engine.measure.machine import machine
from engine.measure.metrics import METRICS
from engine.measure.verdict import MIN_PAIRS
from engine.presets import presets
from engine.public import check
from engine.refusal import Refusal
from engine.registry import GROUPS
from engine.spec import plan_for

FILES = sorted((FOLDER / "lessons").glob("*.toml"))
REAL = lessons()
WHOLE = """
title = "A title"
family = "Speculation"
question = "Does it pay?"
preset = "when-does-guessing-pay"
seconds = 30
explanation = "Because."

[prediction]
ask = "How many times as fast?"
metric = "output_tok_per_s"
lane = "B"
over = "A"
low = 0.5
high = 6
step = 0.1

[[next]]
say = "Guess more."
change = ["lanes.B.opts.prompt_lookup.guesses=10"]
"""


@pytest.fixture
def read(tmp_path):
    def made(text: str, name: str = "07-does-it-pay.toml") -> Lesson:
        (tmp_path / name).write_text(text)
        return lesson(tmp_path / name)

    return made


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_lesson_can_be_taken_here(path):
    one = lesson(path)
    race, asked = one.experiment(), one.prediction
    assert asked.metric in METRICS and race.rounds >= MIN_PAIRS, "fewer rounds have no verdict"
    assert {asked.lane, asked.over} <= set(race.lanes) and next(iter(race.lanes)) == asked.over
    assert one.question.endswith("?") and len(one.explanation) > 100 and one.next
    assert race.expect is None and not race.why, "nothing may give the answer away"
    for number in range(len(one.next)):
        assert one.further(number) != race
    for lane in (asked.lane, asked.over):
        try:
            plan_for(race.lanes[lane], race.model, machine())
        except Refusal as refusal:
            assert "not installed" in refusal.why or "compiler" in refusal.why, refusal.why


def test_a_public_server_lets_every_lesson_run(monkeypatch):
    monkeypatch.setenv("PITLANE_PUBLIC", "1")
    for one in REAL.values():
        check(one.experiment(), gpu=False)


def test_the_path_goes_through_the_families_and_ends_with_everything_together():
    assert 10 <= len(REAL) <= 14 and not any(one.simulated for one in REAL.values())
    on = [set(one.experiment().lanes[one.prediction.lane].opts) for one in REAL.values()]
    assert len(set().union(*on)) >= 8, "lessons are about different things"
    assert list(REAL)[-1] == "what-do-all-gain-together" and len(on[-1]) == 3
    assert len({one.title for one in REAL.values()}) == len(REAL) and len(GROUPS) <= len(REAL)
    assert any(one.prediction.choices for one in REAL.values()) and {one.prediction.unit for one in REAL.values()} == {
        "times",
        "percent",
    }


def test_demonstrations_are_shown_only_on_demand_and_say_what_they_are():
    extra = [one for name, one in lessons(True).items() if name not in REAL]
    assert extra and all(one.simulated and "Simulated" in one.explanation for one in extra)


def test_what_a_reader_sees_first_gives_nothing_away():
    for one in lessons(True).values():
        shown = str(one.shown())
        assert one.explanation not in shown and not any(step.say in shown for step in one.next)


def test_a_preset_is_cut_down_and_otherwise_the_same(read):
    short = read(WHOLE.replace("seconds = 30", "seconds = 30\nrounds = 6\nmax_new_tokens = 16")).experiment()
    whole = presets()["when-does-guessing-pay"]
    assert (short.rounds, short.workload.max_new_tokens) == (6, 16)
    assert short.lanes == whole.lanes and short.workload.prompts == whole.workload.prompts


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('preset = "when', 'preset = "whenever'), "there is no preset"),
        (('metric = "output', 'metric = "outside'), "there is no metric"),
        (('lane = "B"', 'lane = "C"'), "compares one of B with A"),
        (("low = 0.5", "low = 9"), "low below high"),
        (("low = 0.5", "lowest = 0.5"), "prediction.lowest"),
        (("seconds = 30", 'lanes = ["A", "Z"]\nseconds = 30'), "no lane Z"),
        (("seconds = 30", "rounds = 3\nseconds = 30"), "greater than or equal to 6"),
        (("low = 0.5\nhigh = 6\nstep = 0.1", 'choices = ["faster", "blue"]'), "prediction.choices"),
        (("low = 0.5", 'choices = ["faster", "slower"]'), "no slider"),
        (("guesses=10", "guesses=0"), "guesses"),
        (("lanes.B.opts", "lanes.Z.opts"), "no lane Z"),
        (("title", "title ="), "not a TOML file"),
    ],
)
def test_a_bad_file_is_one_sentence_that_names_it(read, change, says):
    assert change[0] in WHOLE
    with pytest.raises(Refusal, match=says) as refused:
        read(WHOLE.replace(*change, 1))
    assert "07-does-it-pay.toml" in refused.value.why and "\n" not in refused.value.why


def result(metric: str, ratio: float | None, word: str = "faster", pairs: int = 6, spread: float = 1.05) -> dict:
    bounds = {"low": ratio and ratio / spread, "high": ratio and ratio * spread}
    verdict = {
        "metric": metric,
        "lane": "B",
        "over": "A",
        "ratio": ratio,
        "word": word,
        "pairs": pairs,
        "sentence": "So it is.",
        **bounds,
    }
    return {"verdicts": [verdict], "lanes": [{"name": "B", "why": None if ratio else "no room"}]}


def test_a_guess_is_marked_by_how_far_it_is_off(read):
    one = read(WHOLE)
    told = one.told(result("output_tok_per_s", 2.0))
    assert (told["value"], told["unit"], told["verdict"], told["explanation"]) == (2.0, "×", "So it is.", "Because.")
    far, near, hit = (one.mark(told, guess) for guess in (3.0, 2.18, 1.95))
    assert far["off"] == pytest.approx(0.5) and not far["right"] and "50 % too high" in far["said"]
    assert near["right"] and "Close" in near["said"] and hit["right"] and "within the interval" in hit["said"]


def test_a_share_is_in_percent_and_a_speed_counts_up_whichever_way_the_metric_does(read):
    latency = WHOLE.replace("output_tok_per_s", "ttft_ms")
    speed = read(latency).outcome(result("ttft_ms", 0.5))
    share = read(latency.replace("low = 0.5", 'unit = "percent"\nlow = 0.5')).outcome(result("ttft_ms", 0.5))
    assert (speed["value"], speed["low"]) == pytest.approx((2.0, 2 / 1.05)) and speed["high"] > 2
    assert share["value"] == 50.0 and share["low"] == pytest.approx(50 / 1.05) and share["unit"] == "%"


def test_a_word_is_right_wrong_or_cannot_be_told(read):
    one = read(WHOLE.replace("low = 0.5\nhigh = 6\nstep = 0.1", 'choices = ["faster", "same", "slower"]'))
    marks = [
        one.mark(one.outcome(result("output_tok_per_s", 2.0, word)), "faster")["right"]
        for word in ("faster", "slower", "cannot tell")
    ]
    assert marks == [True, False, None]
    for bad in ("cannot tell", "blue", 2.0, None):
        with pytest.raises(Refusal, match="no answer"):
            one.prediction.accept(bad)


@pytest.mark.parametrize("bad", ["faster", 0.4, 6.1, True, None, float("nan"), [1]])
def test_a_guess_outside_of_the_range_is_refused(read, bad):
    with pytest.raises(Refusal, match="Guess between 0"):
        read(WHOLE).prediction.accept(bad)
    assert read(WHOLE).prediction.accept(2) == 2.0


def test_what_was_not_measured_makes_no_guess_wrong(read):
    one = read(WHOLE)
    for nothing in (None, result("output_tok_per_s", 2.0, pairs=5), result("output_tok_per_s", None)):
        told = one.told(nothing)
        assert told["value"] is None and told["verdict"] and one.mark(told, 2.0)["right"] is None
    assert "Lane B: no room" in told["verdict"]


def test_what_races_is_said_before_the_guess():
    said = REAL["when-is-a-guess-free"].shown()["setup"]
    start, *lanes = said.split("; ")
    assert start == "SmolLM2 135M Instruct, a prompt of 53 words, 64 new tokens"
    assert lanes == ["lane A: nothing switched on", "lane B: prompt lookup 5"]
    assert "4 prompts of 5 to 13 words, 32 new tokens each" in REAL["what-does-company-gain"].setup
    assert "in place of a model" in lessons(True)["how-fast-is-a-timetable"].setup


def test_withdrawn_rounds_leave_an_unsound_figure_and_say_how_quiet_the_machine_must_be(read):
    spoiled = result("output_tok_per_s", None, "cannot tell", pairs=0)
    spoiled["verdicts"][0]["withdrawn"] = 6
    lane = {"why": None, "conditions": {"others_cores": 1.32}}
    spoiled["lanes"] = [{"name": n, "metrics": {"output_tok_per_s": v}, **lane} for n, v in (("A", 8.0), ("B", 12.0))]
    told = read(WHOLE).told(spoiled | {"machine": {"cores": 2}})
    assert told["value"] is None and told["unsound"] == pytest.approx(1.5)
    assert "used 1.3 of this machine's 2 cores" in told["quiet"] and "less than 25% of its time" in told["quiet"]
    few = read(WHOLE).told(result("output_tok_per_s", 2.0, pairs=5))
    assert few["unsound"] == 2.0 and few["quiet"] == "" and read(WHOLE).told(None)["unsound"] is None


def test_names_keep_their_order_and_lose_their_number():
    names = [path.stem for path in FILES]
    assert [name.partition("-")[2] for name in names] == list(lessons(True))
    assert all(a[:2] < b[:2] for a, b in pairwise(names))
