"""Merged projections change no token and keep no weight twice."""

import pytest
import torch
from torch import nn

from engine.decode.fuse import Merged, fuse_kernels, kernels, merge_projections, merged
from engine.decode.loop import decode
from engine.decode.prompts import Batch
from engine.decode.sampling import Sampling
from engine.decode.stepper import Growing, Preallocated, Stepper, keep_all
from engine.models.load import effective, weights_bytes
from engine.refusal import Refusal
from tests.engine.said import Said
from tests.engine.tiny import prompts, tiny

GREEDY = Sampling(frozenset({0}), True)
GROUPS = {
    "llama": 4, "mistral": 4, "qwen2": 4, "qwen3": 4, "gemma2": 4, "gemma3": 6, "opt": 2, "qwen3_moe": 2,
}  # fmt: skip
"""Merged layers that each tiny model should have: attention and feed-forward in every layer that has both."""


@torch.inference_mode()
def tokens(stepper: Stepper, *widths: int) -> dict[int, list[int]]:
    work = Batch(tuple(range(len(widths))), prompts(*widths), (16,) * len(widths))
    said = Said()
    decode(stepper, work, GREEDY, said)
    return said.tokens


def growing(model, *widths: int) -> dict[int, list[int]]:
    return tokens(Growing(model, [max(widths) - width for width in widths]), *widths)


@pytest.mark.parametrize("kind", GROUPS)
def test_merged_projections_write_the_same_tokens(kind):
    model = tiny(kind)
    wanted = [growing(model, 7), growing(model, 3, 9, 5)]
    bytes_before, known = weights_bytes(model), effective(model)
    assert merge_projections(model) == {"merged": GROUPS[kind]}
    assert [growing(model, 7), growing(model, 3, 9, 5)] == wanted
    assert weights_bytes(model) == bytes_before
    assert effective(model) == known, "merged layers are not taken for quantized ones"


def test_merging_twice_changes_nothing():
    model = tiny("llama")
    assert merge_projections(model) == merge_projections(model) == {"merged": 4}
    assert merged(model) == 4


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3"])
def test_the_merged_step_is_one_graph(kind):
    model = tiny(kind)
    wanted = growing(model, 7)
    merge_projections(model)
    compiled = torch.compile(model.forward, backend="eager", fullgraph=True, dynamic=False)
    assert tokens(Preallocated(model, [0], keep_all(model.config, 64), compiled), 7) == wanted


def test_the_merged_step_compiles_and_writes_the_same_tokens():
    model = tiny("llama")
    wanted = growing(model, 7)
    merge_projections(model)
    compiled = torch.compile(model.forward, fullgraph=True, dynamic=False)
    assert tokens(Preallocated(model, [0], keep_all(model.config, 64), compiled), 7) == wanted


@pytest.mark.parametrize("kind", ["gpt2", "phi3"])
def test_a_model_with_nothing_to_merge_is_refused(kind):
    with pytest.raises(Refusal, match="one product already"):
        merge_projections(tiny(kind))


def test_quantized_layers_are_refused_and_left_alone():
    class Linear4bit(nn.Linear):
        pass

    model = tiny("llama")
    odd = Linear4bit(64, 96)
    model.model.layers[1].mlp.up_proj = odd
    with pytest.raises(Refusal, match="Linear4bit"):
        merge_projections(model)
    assert merged(model) == 0 and model.model.layers[1].mlp.up_proj is odd


def test_each_share_answers_for_the_input_that_it_is_asked():
    torch.manual_seed(1)
    parts = [nn.Linear(5, 3), nn.Linear(5, 2, bias=False), nn.Linear(5, 4)]
    whole = Merged(parts)
    one, other = torch.randn(2, 5), torch.randn(2, 5)
    for order in ((0, 1, 2), (2, 0, 1)):
        for place in order:
            torch.testing.assert_close(whole.take(place, one), parts[place](one))
    assert not whole.kept and whole.source is None, "nothing is kept once all have taken theirs"
    for place, source in ((0, one), (1, other), (2, one), (2, other)):
        torch.testing.assert_close(whole.take(place, source), parts[place](source))


def test_fused_kernels_are_refused_where_they_cannot_run():
    for kind, why in (("gpt2", "gpt2"), ("gemma3", "gemma3"), ("llama", "GPU")):
        model = tiny(kind)
        with pytest.raises(Refusal, match=why):
            fuse_kernels(model)
        assert kernels(model) == 0
