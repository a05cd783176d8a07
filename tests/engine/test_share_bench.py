"""The bench of the memory's share: what a step reads is counted, and every pair is kept."""

import pytest
import torch

from engine.kernels.packed import Decoder
from engine.kernels.weights import Weights
from tests.bench import share
from tests.engine.tiny import tiny


@torch.inference_mode()
@pytest.mark.parametrize(("kind", "head"), [("float32", "float32"), ("int8", "int8"), ("int4", "int8")])
def test_a_step_reads_its_weights_the_context_and_one_row(kind, head):
    model = tiny("llama")
    decoder = Decoder(Weights(model, kind, head), 128, 2, True)
    config, weights = model.config, decoder.weights
    heads, size = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
    kept = config.num_hidden_layers * heads * size * 2 * 95.5
    matrices = [layer[name] for layer in weights.layers for name in ("qkv", "out", "gate_up", "down")]
    read = sum(matrix.bytes() for matrix in (*matrices, weights.head))
    assert share.moved(decoder) == read + 4 * (config.hidden_size + kept)
    found = share.pairs(decoder, 3)
    assert len(found["step"]) == len(found["read"]) == 3 and min(found["step"] + found["read"]) > 0
    assert found["bytes"] == share.moved(decoder)


def test_a_share_is_told_with_its_interval_and_its_range():
    assert share.spread([0.5 + 0.001 * n for n in range(101)]) == "55 % (54-56; 50-60)"
    assert list(share.KINDS) == ["float32", "bfloat16", "int8", "int8 x 8", "int4"]
