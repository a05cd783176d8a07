"""Each rule with figures made by hand: where it speaks, and next to it where it must be silent."""

from typing import Any

import pytest

from engine.measure.why import caches, company, compiling, explain, guessing, phases, traffic, work
from engine.measure.why.evidence import Pair, Side, percent
from engine.measure.why.waiting import waiting
from engine.measure.why.work import kind_of


def lane(name: str, **parts: Any) -> dict[str, Any]:
    """A lane of a result: `ms` is its TPOT, dotted addresses are written with two underscores."""
    made: dict[str, Any] = {
        "name": name, "lane": {"opts": {}}, "effective": {"unmet": []}, "speculation": None, "phases": {},
        "metrics": {"tpot_ms": parts.pop("ms", 40.0)}, "memory": {}, "rounds": [], "occupancy": {"requests": 1.0},
    }  # fmt: skip
    for address, value in parts.items():
        *path, last = address.split("__")
        place = made
        for key in path:
            place = place.setdefault(key, {})
        place[last] = value
    return made


def pair(mine: dict[str, Any], other: dict[str, Any], **words: str) -> Pair:
    """The verdicts' words by metric; the ratio is as the word says."""
    ratios = {"faster": 0.5, "slower": 2.0, "same": 1.0, "cannot tell": 1.01}
    judged = {metric: {"word": word, "ratio": ratios[word], "pairs": 8} for metric, word in words.items()}
    return Pair(Side(mine), Side(other), judged)


def profile(total: int, busy: float | None = None, **shares: float) -> dict[str, Any]:
    """A profiled step: shares of its time by operator, each launched ten times."""
    top = [{"name": name, "count": 10, "share": share} for name, share in shares.items()]
    return {"unit": "operators", "total": total, "calls": total, "top": top, "busy_ms": busy}


def ceiling(weights: float, share: float, bound: str = "memory") -> dict[str, Any]:
    return {"decode": {"bytes": {"weights": weights, "kv": 0.0}, "share": share, "bound": bound}}


def test_bytes_explain_a_faster_step_only_where_memory_is_the_limit():
    halved = {"ms": 20.0, "ceiling": ceiling(2e8, 0.6)}
    found = traffic.bytes_read(pair(lane("B", **halved), lane("A", ceiling=ceiling(4e8, 0.62)), tpot_ms="faster"))
    assert "reads 200 MB instead of 400 MB" in found.sentence and "60% of what the memory allows" in found.sentence
    assert "against 62%: a byte takes longer than there, but there are fewer of them)." in found.sentence
    quick = lane("A", ceiling=ceiling(4e8, 0.5))
    assert "against 50%)." in traffic.bytes_read(pair(lane("B", **halved), quick, tpot_ms="faster")).sentence
    starting = lane("A", ceiling=ceiling(4e8, 0.1, "overhead"))
    assert traffic.bytes_read(pair(lane("B", **halved), starting, tpot_ms="faster")) is None
    assert traffic.bytes_read(pair(lane("B", **halved), lane("A", ceiling=ceiling(4e8, 0.6)), tpot_ms="same")) is None


def test_bytes_that_bring_nothing_show_as_a_lower_share_of_the_ceiling():
    mine, other = lane("B", ceiling=ceiling(1e8, 0.15)), lane("A", ceiling=ceiling(4e8, 0.6))
    found = traffic.bytes_wasted(pair(mine, other, tpot_ms="same"))
    assert found.explains == "same" and "only 15%" in found.sentence
    near = lane("B", ceiling=ceiling(1e8, 0.58))
    assert traffic.bytes_wasted(pair(near, other, tpot_ms="same")) is None


LIMITS = [("memory", 0.7, 0.9, "reading the weights is its limit"), ("compute", 0.7, 0.9, "arithmetic"),
          ("memory", 0.3, 0.9, "90% of the time are the library's products"), ("memory", 0.3, 0.2, "starting 900"),
          ("overhead", 0.6, 0.9, "starting 900")]  # fmt: skip


@pytest.mark.parametrize(("bound", "share", "products", "says"), LIMITS)
def test_a_lane_by_itself_says_what_limits_it(bound, share, products, says):
    alone = lane("A", ceiling=ceiling(4e8, share, bound), effective__launches=profile(900, linear=products))
    assert says in traffic.limit(Side(alone)).sentence
    assert traffic.limit(Side(lane("A"))) is None


def test_one_recorded_call_is_limited_by_its_small_kernels_and_not_by_starting_them():
    recorded = {**profile(152, busy=0.4, skinny=0.8), "unit": "kernels", "calls": 1}
    mine = lane("A", ms=0.42, ceiling=ceiling(2.7e8, 0.15), effective__launches=recorded)
    assert "15% of the speed" in traffic.limit(Side(mine)).sentence
    assert "152 kernels take it one after another" in traffic.limit(Side(mine)).sentence


def eager(kernels: int, busy: float) -> dict[str, Any]:
    return profile(kernels, busy, mul=0.2)


def test_a_gpu_that_waits_for_its_host_is_told_by_what_is_started():
    """Figures of an H200: the embedded model in 16 bits, and packed in 8 bits."""
    one_by_one = lane("A", ms=25.0, effective__launches=eager(1221, 2.17))
    at_once = lane("B", ms=0.491, effective__launches={**eager(152, 2.53), "calls": 1})
    found = explain(pair(at_once, one_by_one, tpot_ms="faster", output_tok_per_s="faster"))[0]
    assert found.rule == "waiting" and found.explains == "faster" and not found.attempts
    assert "computes for 2.17 ms of each step of 25 ms and waits for the host for the rest: 1,221" in found.sentence
    assert "In lane B one call starts all 152 kernels, in 0.491 ms." in found.sentence
    more = waiting(pair(lane("B", ms=100.0, effective__launches=eager(3033, 5.4)), one_by_one, tpot_ms="slower"))
    assert more.explains == "slower" and "3,033 kernels are started one by one" in more.sentence and more.attempts
    alike = waiting(pair(lane("B", ms=26.0, effective__launches=eager(1221, 2.1)), one_by_one, tpot_ms="same"))
    assert alike.explains == "same" and "lane A in 91%: 1,221 times in both" in alike.sentence


@pytest.mark.parametrize(("changes", "word"), [
    ({"effective__launches": eager(1221, 2.1)}, "slower"),  # as many calls: an unsteady host
    ({"effective__launches": eager(3033, 80.0)}, "slower"),  # it computes
    ({"effective__launches": eager(3033, 5.0), "metrics__in_flight": 8.0}, "slower"),  # another step than was profiled
    ({"effective__launches": profile(3033, None, mul=0.2)}, "slower"),  # a processor
    ({"effective__launches": eager(3033, 5.0)}, "faster"),
])  # fmt: skip
def test_where_starting_is_not_what_differs_nothing_is_said_of_it(changes, word):
    one_by_one = lane("A", ms=50.0, effective__launches=eager(1221, 2.17))
    assert waiting(pair(lane("B", ms=100.0, **changes), one_by_one, tpot_ms=word)) is None


def test_prompts_that_are_read_between_tokens_hold_everybody_up():
    gaps = {"metrics__itl_p50_ms": 4.9, "metrics__itl_p90_ms": 27.6, "effective__continuous": {"kind": "slots"}}
    static = lane("A", metrics__itl_p50_ms=4.5, metrics__itl_p90_ms=4.6)
    found = company.held_up(pair(lane("B", **gaps), static, output_tok_per_s="slower"))
    assert "below 4.9 ms, but one in ten is above 27.6 ms" in found.sentence and found.explains == "slower"
    assert company.held_up(pair(lane("B", **gaps), static, output_tok_per_s="faster")) is None
    assert (
        company.held_up(pair(lane("B", **{**gaps, "metrics__itl_p90_ms": 6.0}), static, output_tok_per_s="slower"))
        is None
    )
    assert company.held_up(pair(static, lane("B", **gaps), output_tok_per_s="slower")) is None


def test_a_small_share_has_a_digit():
    assert [percent(share) for share in (0.0, 0.0023, 0.01, 0.154)] == ["0%", "0.2%", "1%", "15%"]


def test_widening_is_named_with_its_time_and_not_where_it_is_small():
    plain = lane("A", ms=18.0, effective__launches=profile(100, linear=0.9))
    narrow = {"effective__quantization": {"kind": "int8"}}
    mine = lane("B", effective__launches=profile(400, int8_mixed_scaled_mm=0.4, int8_vectorwise_quant=0.5), **narrow)
    found = work.widening(pair(mine, plain, tpot_ms="slower"))
    assert found.explains == "slower" and "takes 20 ms of each step of 40 ms" in found.sentence
    assert "0.2 ms less" in found.sentence
    small = lane("B", effective__launches=profile(400, gemv_4bit=0.9, _to_copy=0.05), **narrow)
    assert work.widening(pair(small, plain, tpot_ms="slower")) is None


def test_on_a_gpu_what_is_left_of_a_step_is_waiting_for_the_host():
    eager = lane("A", ms=10.0, effective__launches=profile(600, busy=3.0, gemm=0.8))
    replayed = lane("B", ms=4.0, effective__launches=profile(600, busy=3.0, gemm=0.8))
    found = work.time_split(pair(replayed, eager, tpot_ms="faster"))
    assert found.evidence["kind"] == "waiting" and found.evidence["over_ms"] == pytest.approx(7.0)


def test_a_difference_within_the_noise_of_one_profile_is_not_split():
    mine = lane("B", ms=40.0, effective__launches=profile(100, linear=0.8))
    other = lane("A", ms=41.0, effective__launches=profile(100, linear=0.9))
    assert work.time_split(pair(mine, other, tpot_ms="faster")) is None
    unseen = lane("B", ms=20.0, effective__launches=profile(100, fused=0.8))
    assert work.time_split(pair(unseen, other, tpot_ms="faster")) is None, "its products were not seen"
    uneven = lane("B", ms=46.7, effective__launches=profile(100, linear=0.726))
    even = lane("A", ms=43.9, effective__launches=profile(100, linear=0.538))
    assert work.time_split(pair(uneven, even, tpot_ms="slower")) is None, "10 ms of products in 3 ms of difference"


def test_names_of_operators_have_a_kind():
    kinds = {
        "linear": "products", "int8_mixed_scaled_mm": "products", "fused mm relu": "products", "mul": "small",
        "fused add mean mul": "small", "_scaled_dot_product_flash_attention_for_cpu": "attention",
        "_to_copy": "widening", "int8_vectorwise_quant": "widening", "kernel bfloat16_copy_kernel": "widening",
        "all_reduce": "exchange", "ncclDevKernel_AllReduce": "exchange", "direct_copy_kernel": "small",
    }  # fmt: skip
    assert {name: kind_of(name) for name in kinds} == kinds


def test_a_draft_that_costs_more_than_it_gives_says_what_it_took():
    guess = {"speculation": {"acceptance_rate": 0.3}, "rounds": [{"tokens_per_step": 2.0}], "lane__opts": {}}
    spent = {"kind": "draft_model", "asked": 10, "draft_s": 0.6}
    mine = lane("B", ms=60.0, effective__speculation=spent, **guess)
    found = guessing.acceptance(pair(mine, lane("A"), tpot_ms="slower"))
    assert "wrote 2 tokens and took 3.00× as long" in found.sentence and "60 ms of it for guessing" in found.sentence
    assert guessing.acceptance(pair(lane("B"), lane("A"), tpot_ms="slower")) is None


def test_guesses_that_carry_equally_far_are_no_difference():
    """Tokens a step that read the same are told once, and the step's length alone explains; without it, nothing does.

    Nor is another number of guesses proposed."""

    def guessing_lane(name: str, ms: float, tokens: float) -> dict[str, Any]:
        spent = {"kind": "prompt_lookup", "asked": 10, "draft_s": 0.0}
        opts = {"prompt_lookup": {"guesses": 4}}
        parts = {"effective__speculation": spent, "lane__opts": opts, "speculation": {"acceptance_rate": 0.83}}
        return lane(name, ms=ms, rounds=[{"tokens_per_step": tokens}], **parts)

    other = guessing_lane("A", 2.0, 4.3333)
    found = guessing.acceptance(pair(guessing_lane("B", 1.0, 4.3334), other, tpot_ms="faster"))
    assert "equally far, 4.33 tokens in a step, and a step of lane B took 0.50× as long" in found.sentence
    assert "all of the gain is in the shorter step: 83%" in found.sentence and "instead of" not in found.sentence
    assert found.attempts == ()
    longer = guessing.acceptance(pair(guessing_lane("B", 4.0, 4.3334), other, tpot_ms="slower"))
    assert "took 2.00× as long" in longer.sentence and "all of the loss is in the longer step" in longer.sentence
    assert guessing.acceptance(pair(guessing_lane("B", 2.0, 4.3334), other, tpot_ms="same")) is None
    further = guessing.acceptance(pair(guessing_lane("B", 1.0, 5.0), other, tpot_ms="faster"))
    assert "wrote 5 tokens instead of 4.33 and took 0.58×" in further.sentence and further.attempts


def test_requests_that_share_steps_and_one_that_is_alone():
    shared = lane("B", ms=50.0, metrics__in_flight=4.0)
    found = company.sharing(pair(shared, lane("A"), output_tok_per_s="faster"))
    assert "4 requests shared a step" in found.sentence and "1.25× as long" in found.sentence
    assert company.sharing(pair(lane("B"), lane("A"), output_tok_per_s="faster")) is None
    single = lane("B", ms=48.0, lane__opts={"continuous_batching": {"slots": 8}}, metrics__in_flight=1.0)
    found = company.alone(pair(single, lane("A"), output_tok_per_s="slower"))
    assert found.explains == "slower" and "nobody to bring together" in found.sentence and "1.20×" in found.sentence
    assert found.attempts == ({"lane.opts.continuous_batching": False},)
    assert company.alone(pair(shared, lane("A"), output_tok_per_s="slower")) is None


SPLIT = {"effective__tensor_parallel": {"kind": 3}, "effective__launches": profile(400, linear=0.2, all_reduce=0.7)}


def test_ranks_are_explained_by_their_exchange_and_not_by_the_threads_of_one_of_them():
    whole = lane(
        "A", ms=40.0, effective__threads=2, ceiling=ceiling(5e8, 0.3), effective__launches=profile(300, mm=0.9)
    )
    ranks = lane("B", ms=200.0, effective__threads=1, ceiling=ceiling(5e8, 0.06), **SPLIT)
    moved = {"output_tok_per_s": "slower", "tpot_ms": "slower"}
    found = explain(pair(ranks, whole, **moved))
    assert [one.rule for one in found] == ["ranks"] and found[0].attempts == ({"lane.opts.tensor_parallel": False},)
    assert "3 ranks read a part of the weights each, and a step takes 200 ms against 40 ms, 140 ms" in found[0].sentence
    turned = explain(pair(whole, ranks, **dict.fromkeys(moved, "faster")))
    assert [(one.rule, one.explains) for one in turned] == [("ranks", "faster")]
    unprofiled = lane("B", ms=200.0, effective__tensor_parallel={"kind": 3})
    assert company.ranks(pair(unprofiled, whole, tpot_ms="slower")).sentence.endswith("200 ms against 40 ms.")


@pytest.mark.parametrize("several", [{"effective__replicas": {"kind": 2}}, {"effective__tensor_parallel": {"kind": 2}}])
def test_threads_of_one_of_several_processes_explain_nothing(several):
    two, one = ({"effective__threads": count, "ceiling": ceiling(5e8, 0.3)} for count in (2, 1))
    moved = {"tpot_ms": "faster"}
    assert "2 threads read" in traffic.threads(pair(lane("A", ms=20.0, **two), lane("B", **one), **moved)).sentence
    assert traffic.threads(pair(lane("A", ms=20.0, **two), lane("B", **one, **several), **moved)) is None


def test_empty_places_of_a_ragged_batch():
    wasted = lane("B", occupancy={"idle": 0.42, "padding": 0.05}, lane__opts={"batching": {"size": 4}})
    found = company.empty_places(pair(wasted, lane("A"), output_tok_per_s="faster"))
    assert "42% of the places" in found.sentence and "padding" not in found.sentence and found.explains is None
    full = lane("B", occupancy={"idle": 0.0, "padding": 0.02})
    assert company.empty_places(pair(full, lane("A"), output_tok_per_s="slower")) is None


def test_queueing_is_told_by_its_share_of_the_difference():
    mine = lane("B", metrics__queue_ms=900.0, metrics__ttft_ms=1000.0)
    other = lane("A", metrics__queue_ms=100.0, metrics__ttft_ms=200.0)
    found = company.queueing(pair(mine, other, ttft_ms="slower", output_tok_per_s="slower"))
    assert "waited 900 ms" in found.sentence and "100%" in found.sentence and found.explains == "slower"
    read = lane("B", metrics__queue_ms=100.0, metrics__ttft_ms=1000.0)
    assert company.queueing(pair(read, other, ttft_ms="slower")) is None


def test_recompiles_and_what_compiling_costs():
    again = lane("B", effective__recompiles=3)
    found = compiling.recompiles(pair(again, lane("A"), output_tok_per_s="slower"))
    assert "compiled 3 more steps" in found.sentence and found.explains == "slower"
    assert compiling.recompiles(pair(lane("B", effective__recompiles=0), lane("A"))) is None
    slow = lane("B", ms=41.0, phases__compile_s=20.0)
    assert "do not earn that back" in compiling.payback(pair(slow, lane("A"))).sentence
    short = lane("B", ms=30.0, phases__compile_s=20.0, rounds=[{"output_tokens": 100}])
    assert compiling.payback(pair(short, lane("A"))).evidence["payback_tokens"] == pytest.approx(2000)
    assert compiling.payback(pair(lane("B", ms=30.0, phases__compile_s=0.2), lane("A"))) is None


def test_without_a_cache_a_step_reads_the_whole_text():
    off = lane("B", ms=600.0, effective__kv={"kind": "off"}, occupancy={"prompt_tokens": 400.0, "output_tokens": 40.0})
    kept = lane("A", effective__kv={"kind": "dynamic"})
    found = caches.recomputing(pair(off, kept, tpot_ms="slower"))
    assert "420 tokens on average instead of 1" in found.sentence
    assert caches.recomputing(pair(kept, off, tpot_ms="faster")) is None


def test_keys_and_values_are_too_small_to_show_or_not():
    sizes = {"memory__weights_bytes": 5e8, "memory__kv_bytes": 5e6}
    static = lane("B", effective__kv={"kind": "static"}, **sizes)
    grown = lane("A", effective__kv={"kind": "dynamic"}, **sizes)
    assert "1.0% of what a step reads" in caches.small_cache(pair(static, grown, tpot_ms="same")).sentence
    assert caches.small_cache(pair(static, grown, tpot_ms="slower")) is None
    long = lane("B", effective__kv={"kind": "static"}, memory__weights_bytes=5e8, memory__kv_bytes=2e8)
    assert caches.small_cache(pair(long, grown, tpot_ms="same")) is None


def test_a_difference_before_the_first_token_is_said_to_lie_there():
    mine = lane("B", metrics__ttft_ms=300.0, metrics__e2e_ms=800.0)
    other = lane("A", metrics__ttft_ms=700.0, metrics__e2e_ms=1200.0)
    words = {"ttft_ms": "faster", "output_tok_per_s": "faster"}
    assert "100% of the difference" in phases.first_token(pair(mine, other, **words)).sentence
    later = lane("B", metrics__ttft_ms=690.0, metrics__e2e_ms=800.0)
    assert phases.first_token(pair(later, other, **words)) is None


def test_an_unexplained_difference_is_not_made_up():
    found = explain(pair(lane("B", ms=20.0), lane("A"), output_tok_per_s="faster", tpot_ms="faster"))
    assert [one.rule for one in found] == ["unknown"]
    assert explain(pair(lane("B"), lane("A"), output_tok_per_s="cannot tell")) == []
