"""Which question the form asks, what a run tells of its own, and whether the two are still the same."""

import json

import pytest

from components.page.question import asked, key, known, reasons
from components.race import Race
from engine.event import Conditions, Finished, Record, Request, Step
from engine.presets import FAMILIES, family, presets
from engine.spec import Experiment, Lane
from tests.page.site import looks
from tests.page.test_page import run_to, simulated, state


def test_questions_stand_family_by_family():
    families = [family(one) for one in presets().values()]
    assert families == sorted(families, key=FAMILIES.index) and len(set(families)) == 8
    assert family(presets()["everything-on"]) == "several together"
    assert family(presets()["is-our-loop-as-fast-as-generate"]) == "engines"


@pytest.mark.parametrize("name", presets())
def test_a_preset_in_the_form_is_its_question(name):
    one = presets()[name]
    found = asked(one.model, one.workload, one.lanes)
    assert found == {"key": key(one), "question": name} and known()[found["key"]] == name


def test_another_length_or_lane_is_another_setup_and_half_a_form_is_none():
    one = presets()["when-does-guessing-pay"]
    longer = one.workload.model_copy(update={"max_new_tokens": 99})
    assert asked(one.model, longer, one.lanes)["question"] is None
    assert asked(one.model, one.workload, {**one.lanes, "C": Lane()})["key"] != key(one)
    assert key(one) == key(one.model_copy(update={"rounds": 2, "title": "", "why": ""}))
    assert asked("", one.workload, one.lanes) == asked(one.model, None, one.lanes) == {}


def test_what_was_expected_is_a_sentence():
    why, expected = reasons(presets()["when-does-guessing-pay"])
    assert why == presets()["when-does-guessing-pay"].why
    assert expected == "Expected: Tokens per second of lane B is at least 1.3 times that of lane A."
    assert reasons(Experiment.read({"workload": {"prompts": "x"}, "lanes": {"A": {}}})) == []


def turn(number: int, others: float) -> list[Record]:
    steps = [Step(0.1 * (place + 1), (0,), ((place,),)) for place in range(3)]
    seen = Conditions(9.0, 2.0, cores=2, own=1.0, others=others, idle=0.0, waited=others)
    return [Record(0, number, event) for event in (Request(0.0, 0, 2), *steps, seen, Finished(9.0))]


def test_a_round_that_will_not_count_is_said_while_the_race_goes_on():
    work = {"prompts": "x", "max_new_tokens": 3}
    race = Race(Experiment.read({"rounds": 3, "workload": work, "lanes": {"A": {}}}))
    told = []
    for number, others in enumerate((0.0, 3.0, 0.0)):
        race.see(turn(number, others))
        told.append(race.lanes[0].view()["lost"])
    assert told == [None, "Round 2 does not count: other programs used 1.5 of 2 cores.", None]


@pytest.mark.browser
def test_a_run_keeps_its_name_and_says_when_the_form_holds_another_setup(visit):
    page = visit()
    simulated(page)
    run_to(page, "done")
    assert page.text_content(".stage .asked .name") == "A setup of your own" and page.is_hidden(".asked .earlier")
    page.click("#preset-does-16-bit-pay")
    page.wait_for_selector(".asked .earlier:not([hidden])")
    assert page.locator("#presets [aria-current]").get_attribute("id") == "preset-does-16-bit-pay"
    looks(page, "earlier", to="#stage")
    page.click(".verdict [data-action=reuse]")
    page.wait_for_selector(".asked .earlier", state="hidden")
    assert page.locator("#presets [aria-current]").count() == 0


@pytest.mark.browser
def test_a_question_stays_with_its_answer_and_kept_guesses_are_explained(visit):
    page = visit(reduced_motion="reduce")
    page.click(".history [data-shelf=recordings]")
    page.locator(".history li button:has-text('poem')").click()
    state(page, "done")
    assert page.text_content(".asked .name") == "Does guessing pay on a poem?"
    page.click(".asked summary")
    assert "Expected:" in page.text_content(".asked details")
    assert page.is_visible(".lane[data-lane='1'] .tinted") and page.is_hidden(".lane[data-lane='0'] .tinted")
    sign = "getComputedStyle(document.querySelector('.text mark .break'), '::before').content"
    assert json.loads(page.evaluate(sign)) == "↵"
    assert "acceptance length" in page.text_content(".stage .compare")
    page.click("#presets label")
    assert page.locator("#presets h4:visible").count() == 8
