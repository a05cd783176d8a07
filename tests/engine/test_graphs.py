"""The self-feeding step, run eagerly, writes token for token what the plain loop writes."""

import pytest
import torch

from engine.decode.graphs import GraphStep, graph_decode, graph_step
from engine.decode.loop import decode
from engine.decode.prompts import Batch
from engine.decode.sampling import Sampling
from engine.decode.stepper import Growing, keep_all
from engine.refusal import Refusal
from tests.engine.said import Said
from tests.engine.tiny import prompts, tiny
from tests.engine.tiny_models import DECODERS

FIXED = Sampling(frozenset({0}), True)
LENGTH = 64


def batch(*widths: int, tokens: int = 20) -> Batch:
    return Batch(tuple(range(len(widths))), prompts(*widths), (tokens,) * len(widths))


@torch.inference_mode()
def plainly(model, work: Batch, sampling: Sampling) -> Said:
    said = Said()
    decode(Growing(model, work.pad), work, sampling, said)
    return said


@torch.inference_mode()
def itself(runner: GraphStep, work: Batch) -> Said:
    said = Said()
    graph_decode(runner, work, said)
    return said


def runner(model, rows: int, sampling: Sampling = FIXED) -> GraphStep:
    return graph_step(model, keep_all(model.config, LENGTH), rows, sampling)


@pytest.mark.parametrize("name", DECODERS)
def test_it_writes_what_the_plain_loop_writes_twice_over(name):
    model, work = tiny(name), batch(7, 7, 7)
    wanted = plainly(model, work, FIXED)
    loop = runner(model, 3)
    for _ in range(2):
        said = itself(loop, work)
        assert (said.tokens, said.cached, said.requests) == (wanted.tokens, wanted.cached, 3)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_rows_of_different_lengths_do_not_see_their_padding(attention):
    model, work = tiny("qwen3"), batch(3, 11, 6)
    model.set_attn_implementation(attention)
    assert itself(runner(model, 3), work).tokens == plainly(model, work, FIXED).tokens


def test_one_request_and_one_token():
    model = tiny("llama")
    for work in (batch(5, tokens=1), batch(5, tokens=2), batch(1, tokens=9)):
        assert itself(runner(model, 1), work).tokens == plainly(model, work, FIXED).tokens


@pytest.mark.parametrize("fixed", [True, False])
def test_a_sample_depends_on_the_seed_as_in_the_plain_loop(fixed):
    model, work = tiny("llama"), batch(5, 5)
    stop = frozenset(range(100))
    texts = []
    for seed in (1, 2, 1):
        sampling = Sampling(stop, fixed, temperature=1.5, seed=seed)
        loop = runner(model, 2, sampling)
        texts.append(itself(loop, work).tokens)
        assert itself(loop, work).tokens == texts[-1], "a second turn starts from the seed again"
        assert texts[-1] == plainly(model, work, sampling).tokens
    assert texts[0] == texts[2] != texts[1]


def test_requests_that_end_early_end_and_the_step_ahead_is_thrown_away():
    model, work = tiny("llama"), batch(6, 6, tokens=30)
    free = plainly(model, work, FIXED).tokens
    sampling = Sampling(frozenset({free[0][4], free[1][9]}), False)
    wanted = plainly(model, work, sampling)
    assert len(wanted.cached) < 30
    loop = runner(model, 2, sampling)
    said = itself(loop, work)
    assert (said.tokens, said.cached) == (wanted.tokens, wanted.cached)
    assert loop.launched == len(said.cached)
    assert itself(loop, work).tokens == wanted.tokens


def test_an_end_mark_cannot_end_a_fixed_length():
    model, work = tiny("llama"), batch(6)
    free = plainly(model, work, FIXED).tokens[0]
    sampling = Sampling(frozenset(free[:3]), True)
    said = itself(runner(model, 1, sampling), work).tokens[0]
    assert len(said) == 20 and not set(said) & sampling.stop


def test_what_cannot_be_recorded_is_refused():
    model = tiny("llama")
    cache = keep_all(model.config, LENGTH)
    model.config.layer_types = ["full_attention", "chunked_attention"]
    with pytest.raises(Refusal, match="chunked attention"):
        graph_step(model, cache, 1, FIXED)
    model = tiny("llama")
    model.set_attn_implementation("flex_attention")
    with pytest.raises(Refusal, match="flex_attention"):
        runner(model, 1)


def test_the_step_reads_no_value_on_the_host():
    """What a CUDA graph cannot hold: an operator that copies a value to the host, or whose shape depends on one."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Names(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.seen: set[str] = set()

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.seen.add(function.name())
            return function(*args, **(kwargs or {}))

    for sampling in (FIXED, Sampling(frozenset({0}), True, temperature=1.0)):
        loop = runner(tiny("qwen3"), 2, sampling)
        itself(loop, batch(5, 5))
        with torch.inference_mode(), Names() as names:
            loop.step.body()
        assert {"aten::mm", "aten::index_copy_"} & names.seen
        assert not names.seen & {"aten::_local_scalar_dense", "aten::nonzero", "aten::multinomial"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_recorded_step_writes_the_same(temperature):
    model, work = tiny("llama").cuda(), batch(7, 4, 9)
    sampling = Sampling(frozenset({0}), True, temperature)
    loop = runner(model, 3, sampling)
    first = itself(loop, work).tokens
    assert loop.graph is not None
    assert itself(loop, work).tokens == first
    if not temperature:
        assert first == plainly(model, work, sampling).tokens
