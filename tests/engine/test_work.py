"""Bytes and operations of a pass, computed by hand for a dense model, a mixture of experts and a tied embedding."""

from dataclasses import asdict, replace

import pytest

from engine.measure.formats import Formats, formats, found
from engine.measure.work import forward
from engine.models.architecture import Architecture, architecture, known
from engine.plan import Plan

F32 = Formats(weight=4.0, plain=4.0, kv=4.0, arithmetic="float32")
GQA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 257,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False,
}  # fmt: skip
MOE = {
    **GQA, "model_type": "qwen3_moe", "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
}  # fmt: skip


def test_a_decode_step_with_grouped_queries_by_hand():
    """One token after 100 kept ones."""
    work = forward(architecture(GQA), F32, new=1, kept=100)
    layer = 64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 96  # q, k and v, o, and three feed-forward matrices
    assert layer == 30_720
    norms, head = 5 * 64, 257 * 64
    assert work.bytes["weights"] == 4 * (2 * layer + norms + head + 64) == 313_088  # one row of the embedding
    assert work.bytes["kv"] == 4 * 2 * 2 * 16 * 2 * (100 + 1) == 51_712  # 2 key heads of 16, not 4; 1 is written
    assert work.bytes["logits"] == 4 * 257
    attention = 2 * 4 * 4 * 16 * 101  # two layers; 4 heads of 16, two products of two operations with 101 keys
    assert work.operations == 2 * (2 * layer + head) + attention == 207_488


def test_a_prompt_by_hand():
    """Ten tokens: the i-th sees i keys, and only the last one meets the head."""
    work = forward(architecture(GQA), F32, new=10)
    assert work.operations == 2 * 10 * 2 * 30_720 + 2 * 257 * 64 + 2 * 4 * 4 * 16 * (10 * 11 // 2) == 1_289_856
    assert work.bytes["kv"] == 4 * 2 * 2 * 16 * 2 * 10
    scores = forward(architecture(GQA), F32, new=10, scores=True).bytes["scores"]
    assert scores == 2 * 4 * 4 * 2 * 55  # written and read, 4 bytes, 4 heads, 2 layers, 55 pairs


def test_a_mixture_reads_only_the_experts_that_its_tokens_meet():
    """Two of four experts for one token; 3 of 4 expected for two, and nearly all for many."""
    shape = architecture(MOE)
    expert, attention, router = 3 * 64 * 48, 12_288, 4 * 64
    assert expert == 9216
    one = forward(shape, F32, new=1)
    small = 2 * (2 * 64 + 2 * 16) + 64  # two norms a layer, those of queries and keys, the last norm
    assert one.bytes["weights"] == 4 * (2 * (attention + router + 2 * expert) + small + 257 * 64 + 64) == 315_392
    assert one.operations == 2 * (2 * (attention + router + 2 * expert) + 257 * 64) + 4 * 4 * 16 * 2 == 157_312
    two = forward(shape, F32, new=1, rows=2)
    assert two.bytes["weights"] - one.bytes["weights"] == pytest.approx(4 * (2 * (3 - 2) * expert + 64))
    many = forward(shape, F32, new=64)
    assert many.bytes["weights"] == pytest.approx(4 * (2 * (attention + router + 4 * expert) + small + 257 * 64 + 4096))


def test_a_tied_embedding_is_read_once_as_the_head():
    """SmolLM2 in bfloat16: all 134,515,008 numbers and one row of the embedding."""
    shape = known("smollm2-135m")
    work = forward(shape, formats(Plan("transformers", "m", dtype="bfloat16"), shape), new=1, kept=0)
    assert work.bytes["weights"] == 2 * (134_515_008 + 576)
    assert work.operations == 2 * (106_168_320 + 28_311_552) + 30 * 4 * 9 * 64


def test_a_window_a_static_cache_and_a_batch():
    shape = replace(architecture(GQA), window=16, sliding=1)
    kept = forward(shape, F32, new=1, kept=100).bytes["kv"]
    assert kept == 4 * 2 * 2 * 16 * (100 + 16 + 2)
    static = forward(architecture(GQA), F32, new=1, kept=100, reach=192)
    assert static.bytes["kv"] == 4 * 2 * 2 * 16 * 2 * (192 + 1)
    one, eight = (forward(architecture(GQA), F32, new=1, kept=100, rows=rows) for rows in (1, 8))
    assert eight.bytes["kv"] == 8 * one.bytes["kv"] and eight.operations == 8 * one.operations
    assert eight.bytes["weights"] - one.bytes["weights"] == 4 * 7 * 64, "weights are read once for all"


def test_prompts_beyond_a_window_see_no_more_than_it():
    """With a window of 16, of 20 tokens 16 see 1 to 16 keys and four see 16."""
    shape = replace(architecture(GQA), window=16, sliding=2)
    pairs = 2 * (16 * 17 // 2 + 4 * 16)
    assert forward(shape, F32, new=20).operations == 2 * 20 * 2 * 30_720 + 2 * 257 * 64 + 4 * 4 * 16 * pairs


@pytest.mark.parametrize(
    ("quantization", "bytes_each"),
    [
        (None, 4.0),
        ({"library": "bitsandbytes", "kind": "nf4"}, 0.5 + 4 / 64),
        ({"library": "bitsandbytes", "kind": "fp4", "double": True}, 0.5 + 1 / 64 + 4 / 16384),
        ({"library": "bitsandbytes", "kind": "int8"}, 1 + 4 / 576),
        ({"library": "torchao", "kind": "int8-weight-only"}, 1 + 4 / 576),
        ({"library": "torchao", "kind": "int4-weight-only", "group": 32}, 0.5 + 4 / 32),
    ],
)
def test_scales_count_as_well(quantization, bytes_each):
    shape = known("smollm2-135m")
    assert formats(Plan("transformers", "m", quantization=quantization), shape).weight == bytes_each


def test_what_was_read_back_puts_the_plan_right():
    shape, plan = known("smollm2-135m"), Plan("transformers", "m", dtype="bfloat16")
    assert found(plan, shape, {"dtype": "float32"}).plain == 4.0
    assert found(plan, shape, {"quantization": {"kind": "gptq 4-bit"}}).weight == 0.5 + 4 / 128
    assert found(plan, shape, {"quantization": {"kind": "none (dequantized from fp8)"}}).weight == 2.0


def test_native_steps_keep_and_multiply_numbers_of_their_own():
    shape = architecture({**GQA, "hidden_size": 192})
    plain = Plan("transformers", "m", dtype="bfloat16", native=True)
    four = replace(plain, packed={"kind": "int4"})
    assert formats(plain, shape) == Formats(2.0, 2.0, 4.0, "bfloat16"), "keys and values of a processor have 32 bits"
    assert formats(four, shape) == Formats(0.5 + 2 / 32, 1.0, 4.0, "int8")
    read_back = {"stored": "int4", "quantization": {"class": "packed", "kind": "int4", "layers": 9, "of": 9}}
    assert found(four, shape, read_back) == formats(four, shape), "what was packed is no checkpoint's format"
    on_gpu = formats(replace(four, device="cuda"), shape)
    assert on_gpu == Formats(0.5 + 2 / 64, 1.0, 2.0, "bfloat16"), "192 is three groups of 64"


def test_packed_keys_and_values_take_their_bits_and_their_scales():
    shape, plan = known("smollm2-135m"), Plan("transformers", "m", kv_bits={"keys": 8, "values": 4, "group": 32})
    assert formats(plan, shape).kv == (1 + 4 / 32 + 0.5 + 4 / 32) / 2


def test_a_shape_survives_json():
    for shape in (known("smollm2-135m"), architecture(MOE)):
        assert Architecture.from_dict(asdict(shape)) == shape
