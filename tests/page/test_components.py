"""The components without a browser: widgets and lanes, the fold from records to view lines, the summary."""

import json
from typing import Any

import pytest

from components import lanes, workload
from components.controls import OFF, bounds, control, value
from components.figures import crowded, figures
from components.page.readiness import missing, number_format, rung
from components.race import Race, line, replay
from components.summary import summary
from engine.event import Admitted, Failed, Finished, Memory, Phase, Record, Request, Step
from engine.measure.machine import machine
from engine.measure.result import result
from engine.presets import presets
from engine.registry import backends, optimizations
from engine.spec import Experiment, Lane


def other(field: Any) -> Any:
    """A valid value of a knob that is not its default."""
    if field.annotation is bool:
        return not field.default
    if field.annotation is str:
        return "another"
    choices = getattr(field.annotation, "__args__", None)
    if choices:
        return next(choice for choice in choices if choice != field.default)
    low, high = bounds(field)
    return next(choice for choice in (high, low) if choice != field.default)


KNOBS = [(name, knob) for name, part in optimizations().items() for knob in part.model_fields]
BACKEND_KNOBS = [(name, knob) for name, part in backends().items() for knob in part.model_fields]


@pytest.mark.parametrize("name", optimizations())
def test_an_optimization_makes_the_round_trip_through_the_widgets(name):
    shown = Lane(opts={name: {}})
    assert lanes.lane(lanes.show(shown)) == shown


@pytest.mark.parametrize(("name", "knob"), KNOBS)
def test_every_knob_makes_the_round_trip(name, knob):
    part = optimizations()[name]
    chosen = {next(iter(part.model_fields)): part.only[knob][0]} if knob in part.only else {}
    shown = Lane(opts={name: {**chosen, knob: other(part.model_fields[knob])}})
    values = lanes.show(shown)
    assert shown.opts and lanes.lane(values) == shown
    assert lanes.show(lanes.lane(values)) == values


@pytest.mark.parametrize(("name", "knob"), BACKEND_KNOBS)
def test_every_backend_makes_the_round_trip(name, knob):
    shown = Lane(backend={"name": name, knob: other(backends()[name].model_fields[knob])}, device="cpu")
    assert lanes.lane(lanes.show(shown)) == shown


def test_a_knob_that_does_not_apply_is_not_read():
    values = lanes.show(Lane(opts={"bitsandbytes": {"kind": "int8", "threshold": 3.0}}))
    read = lanes.lane({**values, "opts.bitsandbytes.kind": "nf4"})
    assert read == Lane(opts={"bitsandbytes": {"kind": "nf4"}})


def test_what_a_lane_lacks_is_offered_only_where_it_cures():
    packed = Lane(opts={"packed_weights": {}})
    assert [name for name, _ in missing(packed, "smollm2-135m")] == ["native_step"]
    assert missing(Lane(opts={"packed_weights": {}, "batching": {}, "prompt_lookup": {}}), "smollm2-135m") == []
    assert missing(Lane(), "smollm2-135m") == []


def test_the_format_is_that_which_ran():
    assert number_format(Lane(device="cpu"), "smollm2-135m") == "float32 (auto)"
    assert number_format(Lane(device="cpu"), "smollm2-135m", {"dtype": "bfloat16"}) == "bfloat16 (auto)"
    assert number_format(Lane(opts={"precision": {"dtype": "bfloat16"}}), "smollm2-135m") == ""


def test_the_rung_is_that_which_was_chosen():
    assert rung(Lane(device="cpu"), "smollm2-135m") == ""
    assert rung(Lane(opts={"fastest": True}), "smollm2-135m").endswith(" (auto)")
    ran = {"notes": ["The compiled step uses a static KV cache.", "Fastest lossless: Merged projections."]}
    assert rung(Lane(opts={"fastest": True}), "smollm2-135m", ran) == "Merged projections (auto)"


def test_widgets_cover_every_address():
    assert set(lanes.show(Lane())) == set(lanes.addresses())


def test_numbers_from_a_browser_become_the_knobs_type():
    guesses = optimizations()["prompt_lookup"].model_fields["guesses"]
    assert value(guesses, 5.0) == 5 and isinstance(value(guesses, 5.0), int)
    assert value(guesses, 5.5) == 5.5


def test_a_model_that_comes_quantized_says_so_and_is_not_offered_with_random_weights():
    names = [name for _, name in workload.choices()]
    assert "smollm2-135m-gguf" in names and "random:smollm2-135m-gguf" not in names
    assert "random:smollm2-135m" in names
    assert "comes quantized (gguf)" in workload.about("smollm2-135m-gguf")
    assert "quantized" not in workload.about("smollm2-135m")


def test_a_switch_adds_off_to_the_choices():
    kind = optimizations()["bitsandbytes"].model_fields["kind"]
    assert [choice for choice, _ in control("kind", kind, switch=True).choices] == [OFF, "int8", "nf4", "fp4"]
    assert [choice for choice, _ in control("kind", kind).choices] == ["int8", "nf4", "fp4"]


@pytest.mark.parametrize("name", presets())
def test_presets_make_the_round_trip_through_the_form(name):
    preset = presets()[name]
    shown = workload.shown(preset)
    values = {key: update["value"] if isinstance(update, dict) else update for key, update in shown.items()}
    made = {key: one.model_dump(mode="json") for key, one in lanes.collected(lanes.spread(preset.lanes)).items()}
    again = Experiment.read({**workload.asked(values), "lanes": made})
    assert (again.model, again.rounds, again.workload, again.lanes) == (
        preset.model,
        preset.rounds,
        preset.workload,
        preset.lanes,
    )


def test_lanes_grow_copy_and_shrink():
    rows = lanes.spread({"A": Lane(), "B": Lane(opts={"batching": True})})
    more, tab, _ = lanes.copied(rows, 1)
    assert [row["name"] for row in more] == ["A", "B", "C"] and tab == 2
    assert lanes.collected(more)["C"] == lanes.collected(more)["B"]
    fewer, _, _ = lanes.shrunk(more, 0)
    assert [row["name"] for row in fewer] == ["B", "C"]
    assert lanes.grown(fewer, 0)[0][-1]["name"] == "A"
    assert lanes.shrunk(rows[:1], 0)[0] == rows[:1]
    bare, tab, _ = lanes.cleared(rows, 1)
    assert tab == 1 and lanes.collected(bare) == {"A": Lane(), "B": Lane()}


EXPERIMENT = Experiment.read(
    {"rounds": 2, "workload": {"prompts": "x", "max_new_tokens": 4}, "lanes": {"A": {}, "B": {}}}
)


def turn(lane: int, number: int, start: float, gap: float) -> list[Record]:
    """Four tokens at a steady pace; the last two are one speculative step."""
    events = [Request(start, 0, 3)]
    events += [Step(start + gap * (n + 1), (0,), ((n,),), ((f"t{n} ",),), n) for n in range(2)]
    events += [Step(start + gap * 3, (0,), ((2, 3),), (("t2 ", "<b>"),), 3, 1, 1)]
    events += [Memory(start + gap * 3, rss=1000 * (lane + 1)), Finished(start + gap * 3)]
    return [Record(lane, number, event) for event in events]


def race_records() -> list[Record]:
    begin = [Record(n, None, e) for n in (0, 1) for e in (Phase(0.0, "load"), Finished(1.0))]
    return begin + turn(0, 0, 10, 0.1) + turn(1, 0, 20, 0.2) + turn(1, 1, 30, 0.2) + turn(0, 1, 40, 0.1)


def folded(text: str) -> tuple[list[dict], list[str]]:
    """What a browser would hold after these lines: the figures and the text of each lane."""
    views, texts = [{}, {}], ["", ""]
    for entry in map(json.loads, text.splitlines()):
        for number, delta in entry.get("lanes", {}).items():
            n = int(number)
            texts[n] = ("" if delta.get("reset") else texts[n]) + "".join(p[1] for p in delta.get("text", []))
            views[n] |= delta
    return views, texts


def test_the_fold_is_the_same_in_one_piece_and_in_many():
    whole, pieces = Race(EXPERIMENT), Race(EXPERIMENT)
    whole.see(race_records())
    text = ""
    for record in race_records():
        pieces.see([record])
        text += pieces.tick()
    one, many = folded(whole.tick()), folded(text)
    drop = ("points", "text", "reset")
    assert [{k: v for k, v in view.items() if k not in drop} for view in one[0]] == [
        {k: v for k, v in view.items() if k not in drop} for view in many[0]
    ]
    assert one[1] == many[1] == ["t0 t1 t2 <b>"] * 2
    assert one[0][0]["rate"] == pytest.approx(4 / 0.3, rel=1e-3)
    assert one[0][1]["phase"] == "finished" and one[0][1]["lap"] == 2


def test_a_replay_puts_all_lanes_on_one_clock():
    text = replay(EXPERIMENT, race_records())
    entries = [json.loads(entry) for entry in text.splitlines()]
    due = [entry["at"] for entry in entries]
    assert due == sorted(due) and due[-1] == pytest.approx(0.7, abs=0.11)
    first = next(entry["at"] for entry in entries if entry["lanes"].get("1", {}).get("text"))
    assert first == pytest.approx(0.2, abs=0.11)
    views, texts = folded(text)
    assert texts == ["t0 t1 t2 <b>"] * 2
    assert views[1]["rate"] == pytest.approx(4 / 0.6, rel=1e-3)


def test_view_lines_hold_no_markup():
    assert "<" not in line("tick", text="<script>") and json.loads(line("x", text="<b>"))["text"] == "<b>"


def test_once_the_machine_is_measured_the_lanes_that_have_not_begun_wait():
    race = Race(EXPERIMENT)
    race.see([Record(lane, None, Phase(0.0, "probe")) for lane in (0, 1)])
    views, _ = folded(race.tick())
    assert [view["phase"] for view in views] == ["measuring this machine, once"] * 2
    race.see([Record(0, None, Phase(1.0, "load"))])
    views, _ = folded(race.tick())
    assert (views[0]["phase"], views[1]["phase"], views[1]["running"]) == ("loading the model", "waiting", False)


def test_a_lane_that_failed_says_why():
    race = Race(EXPERIMENT)
    race.see([Record(1, None, Failed(0.0, "No model.", "Choose another."))])
    views, _ = folded(race.tick())
    assert views[1]["why"] == "No model. Choose another." and views[1]["rate"] is None


def test_unknown_is_none_and_never_zero():
    race = Race(EXPERIMENT)
    race.see([Record(0, 0, Request(1.0, 0, 3))])
    views, _ = folded(race.tick())
    assert [views[0][key] for key in ("rate", "ttft", "itl", "memory")] == [None] * 4


def test_the_summary_has_a_row_for_each_metric_that_is_known():
    records = race_records()
    shown = summary(result(EXPERIMENT, machine().to_dict(), records), "done")
    speed = shown["rows"][0]
    assert speed["key"] == "output_tok_per_s" and speed["cells"][1]["ratio"] == pytest.approx(0.5, rel=1e-3)
    assert "weights_bytes" not in [row["key"] for row in shown["rows"]]
    assert shown["verdicts"][0]["lanes"] == [1] and shown["lanes"][1]["identical"] is True


CROWD = Experiment.read(
    {
        "workload": {"prompts": "x", "requests": 3, "arrivals": "at once", "max_new_tokens": 4, "spread": 0.5},
        "lanes": {"A": {}, "B": {}},
    }
)


def test_the_fourth_chart_is_for_requests_that_meet():
    assert not crowded(EXPERIMENT) and crowded(CROWD)
    in_turn = CROWD.model_copy(update={"workload": CROWD.workload.model_copy(update={"arrivals": "in turn"})})
    batched = in_turn.model_copy(update={"lanes": {"A": Lane(opts={"batching": {}})}})
    assert (crowded(in_turn), crowded(batched)) == (False, True)
    assert [len(figures(["A", "B"], crowd)) for crowd in (False, True)] == [3, 4]
    flight = figures(["A", "B"], True)[3]
    assert flight["layout"]["meta"]["series"] == ["flight", "waiting"]
    assert [trace["name"] for trace in flight["data"]] == ["A", "B", "A", "B"]


def test_who_is_in_flight_and_who_waits_is_drawn_and_a_turn_ends_at_all_of_it():
    events = [Request(1.0, number, 3) for number in range(3)]
    events += [Step(1.1, (0, 1), ((1,), (1,)), waiting=1), Step(1.15, (0, 1), ((2,), (2,)), waiting=1)]
    events += [Step(1.2, (0, 2), ((3,), (1,))), Finished(1.3)]
    race = Race(CROWD)
    race.see([Record(0, 0, event) for event in events])
    delta = json.loads(race.tick())["lanes"]["0"]
    assert delta["points"]["flight"][1][0] == 2 and delta["points"]["waiting"][1] == [1, 1, 0]
    assert delta["points"]["waiting"][0][-1] == pytest.approx(0.2)
    assert delta["tokens"] == 6 and delta["progress"] == 1.0
    assert json.loads(race.start())["prompts"] == 3


def test_rows_of_the_queue_appear_only_where_requests_arrive_by_the_clock():
    def rows(experiment: Experiment) -> set[str]:
        records = [Record(0, n, Request(1.0, number, 3)) for n in range(2) for number in range(2)]
        records += [Record(0, n, Admitted(1.1, number)) for n in range(2) for number in range(2)]
        records += [Record(0, n, Step(1.2, (0, 1), ((1,), (1,)))) for n in range(2)]
        records += [Record(0, n, Finished(1.3)) for n in range(2)]
        return {row["key"] for row in summary(result(experiment, machine().to_dict(), records), "done")["rows"]}

    assert "queue_ms" in rows(CROWD) and "goodput_per_s" not in rows(CROWD)
    assert "queue_ms" not in rows(EXPERIMENT)


def test_a_chart_has_one_trace_a_lane_told_apart_twice():
    for figure in figures(["A", "B", "C", "D"]):
        traces = figure["data"]
        assert [trace["name"] for trace in traces] == ["A", "B", "C", "D"]
        assert (
            len({trace["line"]["dash"] for trace in traces}) == len({trace["meta"]["colour"] for trace in traces}) == 4
        )
