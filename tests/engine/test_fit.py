"""Will it fit: predicted bytes, the refusal with the next smaller setting, and the estimate on the command line."""

import json
from argparse import Namespace
from dataclasses import replace

import pytest

from engine.commands import estimate as command
from engine.measure import estimate as forecasts
from engine.measure.ceiling import Use, decode, keeps_all
from engine.measure.estimate import asked, estimate, refuse
from engine.measure.fit import BY_CUBLAS, CONTEXT, HEADER, LOADED, PROCESS, fit, size, weight_bytes
from engine.measure.formats import formats
from engine.measure.machine import machine
from engine.models.architecture import known
from engine.models.parameters import parameters
from engine.plan import Plan
from engine.refusal import Refusal
from engine.spec import Experiment, Lane, Workload, plan_for
from tests.engine.contract import KEPT, full, generate
from tests.engine.tiny_models import WINDOW, tiny

SHAPE = known("smollm2-135m")
PLAN = Plan("transformers", "smollm2-135m", shape=SHAPE)
WORK = Workload(prompts=("Why is the sky blue?",), max_new_tokens=32)
USE = Use(prompt=100, output=28)
TOKEN = 2 * 30 * 3 * 64 * 4
"""Bytes of one token's keys and values in float32: two of them, 30 layers, 3 heads of 64."""


def test_weights_by_format():
    assert weight_bytes(SHAPE, formats(PLAN, SHAPE)) == 4 * 134_515_008
    nf4 = formats(replace(PLAN, quantization={"library": "bitsandbytes", "kind": "nf4"}), SHAPE)
    assert weight_bytes(SHAPE, nf4) == pytest.approx(106_168_320 * 0.5625 + 4 * (134_515_008 - 106_168_320))


def test_caches_by_kind():
    def kv(**changes) -> float:
        return fit(replace(PLAN, **changes), SHAPE, USE, PROCESS).kv

    assert kv() == 128 * TOKEN
    assert (
        kv(cache="static") == 128 * TOKEN
        and fit(replace(PLAN, cache="static"), SHAPE, Use(101, 28), None).kv == 192 * TOKEN
    )
    assert kv(cache="off") == 0
    assert kv(window={"sinks": 4, "window": 32}) == (32 + 4 + 64) * TOKEN
    assert kv(kv_bits={"keys": 8, "values": 8, "group": 32}) == pytest.approx(128 * TOKEN * (1 + 4 / 32) / 4)
    assert fit(PLAN, SHAPE, replace(USE, rows=8, together=8), None).kv == 8 * 128 * TOKEN


@pytest.mark.parametrize(
    ("opts", "whole"),
    [
        ({}, False),
        ({"kv_cache": {"kind": "static"}}, False),
        ({"prompt_lookup": {"guesses": 3}}, True),
        ({"early_exit": {"guesses": 3, "layers": 1}}, True),
        ({"prompt_lookup": {"guesses": 3}, "kv_cache": {"kind": "static"}}, True),
        ({"continuous_batching": {"slots": 2}}, True),
    ],
)
def test_windows_are_foretold_only_where_they_are_kept(opts, whole, tmp_path):
    """Gemma 3 with two layers that slide: what was held after a prompt of 74 tokens and an answer of 20."""
    folder, prompt = (
        tiny("gemma3", tmp_path),
        "The lamp is lit. abcabcabc The lamp is lit, and the keeper of the lamp is ",
    )
    lane = Lane(opts=opts)
    generate(folder, lane, 20, (prompt,))
    held = next(iter(KEPT.values())).memory()["kv"]
    plan, shape = plan_for(full(lane), str(folder), machine()), known(str(folder))
    use = Use(len(prompt), 20, guesses=3 if plan.speculation else 0)
    assert fit(plan, shape, use, PROCESS).kv == pytest.approx(held, rel=0.07)
    assert keeps_all(plan) is whole
    places = (64 if whole else WINDOW) * shape.sliding + 64 * (shape.layers - shape.sliding)
    read = decode(plan, shape, formats(plan, shape), Use(63, 2), 64 if plan.cache == "static" else None).bytes["kv"]
    assert read == (places + shape.layers) * 2 * shape.kv_heads * shape.head_dim * 4


def test_slots_keep_as_much_as_their_memory_allows_and_a_native_step_32_bits():
    slots, busy = {"slots": 8, "chunk": 128, "memory_mb": 0}, replace(USE, rows=8)
    sizes = {"continuous": slots, "dtype": "bfloat16"}

    def kv(**changes) -> float:
        return fit(replace(PLAN, **{**sizes, **changes}), SHAPE, busy, PROCESS).kv

    assert kv() == 8 * 128 * TOKEN / 2 and kv(native=True) == 8 * 128 * TOKEN
    assert kv(native=True, device="cuda") == kv()
    little = {**slots, "memory_mb": int(3.5 * 128 * TOKEN / 1e6)}
    assert kv(native=True, continuous=little) == 3 * 128 * TOKEN and kv(continuous=little) == 6 * 128 * TOKEN / 2


def test_a_lane_of_several_processes_pays_for_each():
    one, two = fit(PLAN, SHAPE, USE, PROCESS), fit(replace(PLAN, replicas=2), SHAPE, USE, PROCESS)
    assert two.peak == 2 * one.peak
    ranks = fit(replace(PLAN, tensor_parallel=2), SHAPE, USE, PROCESS)
    assert ranks.peak == one.peak + PROCESS + LOADED, "the weights are cut, the processes are two"


def test_quantized_weights_are_loaded_whole_first():
    nf4 = fit(replace(PLAN, quantization={"library": "bitsandbytes", "kind": "nf4"}), SHAPE, USE, PROCESS)
    assert nf4.load > nf4.peak and nf4.needed == nf4.load


def test_a_file_in_gguf_leaves_its_header_and_is_widened_matrix_by_matrix():
    """Measured while loading, over an idle process: 748 MB in float32 and 488 in bfloat16, its weights among them."""
    for dtype, took in (("float32", 748e6), ("bfloat16", 488e6)):
        plan = replace(PLAN, dtype=dtype)
        whole, file = (fit(plan, shape, USE, PROCESS) for shape in (SHAPE, replace(SHAPE, quantized="gguf")))
        assert file.peak - whole.peak == HEADER and file.weights == whole.weights
        assert file.load - PROCESS - LOADED - HEADER == pytest.approx(took, rel=0.03)
        assert (
            fit(replace(plan, native=True, cache="static"), replace(SHAPE, quantized="gguf"), USE, PROCESS).load
            >= file.load
        )


def test_native_weights_take_the_bits_in_which_they_were_published():
    plan = replace(PLAN, native=True, cache="static")
    numbers = parameters(SHAPE).total
    assert fit(plan, SHAPE, USE, PROCESS).weights == 2 * numbers
    assert fit(plan, replace(SHAPE, numbers="float16"), USE, PROCESS).weights == 4 * numbers
    assert fit(replace(plan, model="random:smollm2-135m"), SHAPE, USE, PROCESS).weights == 4 * numbers
    assert fit(plan, SHAPE, USE, PROCESS).load > fit(PLAN, SHAPE, USE, PROCESS).load, "they are packed while whole"


def test_packed_weights_leave_the_embedding_plain():
    plan = replace(PLAN, native=True, cache="static", packed={"kind": "int8", "inputs": 16})
    counted = parameters(SHAPE)
    assert fit(plan, SHAPE, USE, PROCESS).weights == counted.total + 2 * counted.embedding


def test_a_gpu_holds_weights_cache_and_context_only():
    cuda = fit(replace(PLAN, device="cuda", dtype="bfloat16"), SHAPE, USE, PROCESS, room=80e9)
    away = fit(replace(PLAN, device="cuda", dtype="bfloat16", offload=True), SHAPE, USE, PROCESS)
    assert away.kv == cuda.kv * 2 / 30
    assert cuda.peak == cuda.weights + cuda.kv + cuda.workspace + CONTEXT and cuda.fits


INT4 = {"library": "torchao", "kind": "int4-weight-only", "group": 64}
STEP = {"native": True, "graph": True, "cache": "static"}
ON_AN_H200 = [
    ("smollm2-135m", {}, 64, 305_757_184),
    ("smollm2-135m", {"graph": True, "cache": "static"}, 64, 351_685_120),
    ("smollm2-135m", STEP, 64, 307_373_568),
    ("smollm2-135m", {"quantization": INT4}, 24, 192_182_272),
    ("random:llama-3.1-8b", STEP, 128, 16_120_919_552),
    ("random:llama-3.1-8b", {**STEP, "packed": {"kind": "int8", "inputs": 16}}, 128, 8_622_279_168),
    ("random:llama-3.1-8b", {**STEP, "packed": {"kind": "int4", "inputs": 16}}, 128, 5_244_553_728),
]
"""Most bytes that tensors took there, torch 2.11, in bfloat16 with a prompt of 64 tokens and so many new ones."""


@pytest.mark.parametrize(("model", "changes", "output", "peak"), ON_AN_H200)
def test_what_a_gpu_took_was_foreseen(model, changes, output, peak):
    shape = known(model)
    told = fit(replace(PLAN, device="cuda", dtype="bfloat16", shape=shape, **changes), shape, Use(64, output), None)
    assert told.peak - CONTEXT == pytest.approx(peak, rel=0.05)


def test_a_longer_prompt_is_recorded_with_a_library_that_sets_memory_aside_again():
    """Measured there: 343 MB with a prompt of 102 tokens, foreseen were 311."""
    shape = known("smollm2-135m")
    plan = replace(PLAN, device="cuda", dtype="bfloat16", shape=shape, native=True, graph=True, cache="static")
    told = fit(plan, shape, Use(102, 96), None)
    assert told.weights + told.kv + told.workspace == pytest.approx(343_449_088, rel=0.05)
    gpu = pytest.importorskip("engine.decode.gpu", reason="Triton is not installed")
    widths = [tokens for tokens in range(1, 700) if gpu.recorded_width(1, tokens, packed=False)]
    assert [tokens for tokens in widths if tokens > gpu.SKINNY] == [*BY_CUBLAS]


@pytest.mark.parametrize(
    ("opts", "room", "advice"),
    [
        ({}, 0.9e9, "Set number format to"),
        ({"batching": {"size": 8}}, 1.2e9, "Set "),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(monkeypatch, opts, room, advice):
    monkeypatch.setattr(forecasts, "room", lambda *_: room)
    work = WORK.model_copy(update={"prompts": ("Why? " * 400,) * 8})
    lane = Lane(device="cpu", opts=opts)
    with pytest.raises(Refusal, match=r"needs about .* of memory, and this machine has") as refused:
        refuse(lane, plan_for(lane, "smollm2-135m", machine()), work)
    assert refused.value.hint.startswith(advice) and refused.value.hint.endswith(".")
    monkeypatch.setattr(forecasts, "room", lambda *_: 64e9)
    refuse(lane, plan_for(lane, "smollm2-135m", machine()), work)


def test_where_no_setting_helps_a_smaller_model_is_named(monkeypatch):
    monkeypatch.setattr(forecasts, "room", lambda *_: 3e9)
    lane = Lane(device="cpu")
    with pytest.raises(Refusal) as refused:
        refuse(lane, plan_for(lane, "qwen3-8b", machine()), WORK)
    assert refused.value.hint.startswith("Choose a smaller model, ")


def test_a_run_of_what_cannot_fit_starts_no_process(monkeypatch):
    from engine.event import Failed
    from engine.run.pool import Pool
    from engine.run.runner import Run

    monkeypatch.setattr(forecasts, "room", lambda *_: 0.5e9)
    pool = Pool()
    experiment = Experiment(workload=WORK, lanes={"A": Lane()}, rounds=1)
    ends = [record.event for record in Run(experiment, pool).records() if isinstance(record.event, Failed)]
    assert [end.status for end in ends] == ["refused"] and "needs about" in ends[0].why
    assert not pool.idle and not pool.leased


def test_a_model_without_a_known_shape_is_asked_about_later():
    refuse(Lane(), replace(PLAN, shape=None), WORK)


def test_the_prompt_is_counted_by_its_letters():
    tokens, new = asked(Workload(prompts=("a" * 420,), max_new_tokens=7, chat=False))
    assert (tokens, new) == (100, 7)


def test_an_estimate_is_ready_for_json_and_says_unknown_as_none():
    told = estimate(PLAN, SHAPE, WORK)
    assert json.loads(json.dumps(told)) == told
    assert told["fit"]["weights"] == 4 * 134_515_008


def test_sizes_are_said_as_people_say_them():
    assert (size(1_080_000_000), size(269_030_016)) == ("1.1 GB", "269 MB")


def test_the_command_tells_every_lane_and_why_one_is_not_told(capsys, monkeypatch):
    def told(preset: str, *changes: str, plain: bool = True) -> tuple[int, str]:
        done = command.do(Namespace(preset=preset, assignments=list(changes), json=not plain))
        return done, capsys.readouterr().out

    monkeypatch.setattr(forecasts, "room", lambda *_: 2e9)
    done, said = told("does-16-bit-pay")
    assert done == 0 and "538 MB" in said and "269 MB" in said and said.count("yes, of 2.0 GB") == 2
    done, said = told("does-16-bit-pay", "model=qwen3-4b")
    assert done == 1 and "no, of 2.0 GB" in said
    done, said = told("does-16-bit-pay", "model=someone/somewhere", plain=False)
    assert done == 1 and "is known once it is here" in json.loads(said)["A"]["why"]
