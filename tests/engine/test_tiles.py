"""The tiled loops give the untiled result, for sizes that no tile divides, in C++ and in Triton's interpreter."""

import os
import subprocess
import sys
import threading

import pytest
import torch

from engine.kernels import native, tiles
from engine.models.cache import folder
from engine.refusal import Refusal
from tests.engine.processes import python

SIZES = [(1, 1, 1), (3, 37, 70), (7, 50, 131), (64, 33, 576)]
SHAPES = [(1, 1, 1, 16), (3, 1, 37, 32), (4, 2, 129, 64), (3, 3, 101, 80)]


@pytest.fixture(scope="module", autouse=True)
def compiler():
    try:
        native.compiler()
    except Refusal as refusal:
        pytest.skip(str(refusal))


@pytest.mark.parametrize(("tokens", "rows", "depth"), SIZES)
@pytest.mark.parametrize("block", tiles.BLOCKS)
def test_a_product_is_the_same_for_every_tile(tokens, rows, depth, block):
    torch.manual_seed(tokens)
    x, w = torch.randn(tokens, depth), torch.randn(rows, depth)
    exact = x.double() @ w.double().T
    for tile in (1, 5, 16, 32, rows, 4 * rows):
        for threads in (1, 3):
            found = tiles.product(x, w, tile, block, threads)
            torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5 * depth**0.5)


@pytest.mark.parametrize(("heads", "sharing", "context", "dim"), SHAPES)
def test_attention_is_the_same_for_every_tile(heads, sharing, context, dim):
    q, k, v, exact = attention_case(heads, sharing, context, dim)
    whole = tiles.attention_whole(q, k, v, threads=2)
    torch.testing.assert_close(whole.double(), exact, rtol=1e-4, atol=2e-5)
    for block in (1, 3, 4, 64):
        for tile in (1, 5, 16, 33, 1000):
            found = tiles.attention(q, k, v, block, tile, threads=2)
            torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=2e-5)


def attention_case(heads: int, sharing: int, context: int, dim: int) -> tuple:
    """Queries large enough that the highest score moves from tile to tile, and the result in float64."""
    torch.manual_seed(context)
    q = 5 * torch.randn(heads, context, dim)
    k, v = torch.randn(heads // sharing, context, dim), torch.randn(heads // sharing, context, dim)
    wide = [one.double().repeat_interleave(sharing, 0) for one in (k, v)]
    scores = (q.double() @ wide[0].transpose(1, 2)) / dim**0.5
    scores = scores.masked_fill(torch.ones(context, context, dtype=torch.bool).triu(1), float("-inf"))
    return q, k, v, scores.softmax(-1) @ wide[1]


def test_scores_far_apart_do_not_overflow():
    q, k, v = 300 * torch.ones(1, 40, 16), torch.randn(1, 40, 16), torch.randn(1, 40, 16)
    exact = torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double(), is_causal=True)
    for found in (tiles.attention(q, k, v, 4, 8), tiles.attention_whole(q, k, v)):
        torch.testing.assert_close(found.double(), exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "broken",
    [
        lambda x, w: tiles.product(x, w, 4, block=3),
        lambda x, w: tiles.product(x, w, 0),
        lambda x, w: tiles.product(x.double(), w, 4),
        lambda x, w: tiles.product(x.T, w, 4),
        lambda x, w: tiles.attention(x[None], w[None], w[None], 4, 4),
    ],
)
def test_what_no_loop_can_do_is_an_error_and_no_crash(broken):
    with pytest.raises(ValueError, match="loop"):
        broken(torch.randn(4, 20), torch.randn(4, 20))


def test_a_library_is_built_once_for_each_source(tmp_path, monkeypatch):
    monkeypatch.setenv("PITLANE_CACHE", str(tmp_path))
    source = tmp_path / "one.cpp"
    source.write_text('extern "C" int answer() { return 42; }')
    native.library.cache_clear()
    assert native.library(source).answer() == 42
    (built,) = (folder() / "kernels").glob("one-*.so")
    stamp = built.stat().st_mtime_ns
    native.library.cache_clear()
    native.library(source)
    assert built.stat().st_mtime_ns == stamp
    source.write_text('extern "C" int answer() { return 43; }')
    native.library.cache_clear()
    assert native.library(source).answer() == 43
    assert len(list((folder() / "kernels").iterdir())) == 2


def test_several_builders_at_once_do_not_meet_half_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("PITLANE_CACHE", str(tmp_path))
    code = "from engine.kernels.peaks import read; import torch; assert read(torch.ones(99), 1) == 99"
    done: list[subprocess.CompletedProcess] = []
    racers = [threading.Thread(target=lambda: done.append(python("-c", code))) for _ in range(3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert [one.returncode for one in done] == [0] * 3, done
    assert len(list((tmp_path / "kernels").iterdir())) == 1


def test_no_compiler_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    native.library.cache_clear()
    with pytest.raises(Refusal, match=r"no C\+\+ compiler \(no-such-compiler\)"):
        native.library(tiles.SOURCE)


def test_a_source_that_does_not_compile_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PITLANE_CACHE", str(tmp_path))
    source = tmp_path / "bad.cpp"
    source.write_text("this is no C++")
    with pytest.raises(Refusal, match="could not build the loop"):
        native.library(source)
    assert list((tmp_path / "kernels").iterdir()) == []


TRITON = """
import torch
from engine.kernels import tiles_triton
from tests.engine.test_tiles import attention_case
torch.manual_seed(0)
x, w = torch.randn(5, 70), torch.randn(37, 70)
exact = x.double() @ w.double().T
for tile in ((16, 16, 32), (16, 64, 64), (32, 32, 16)):
    torch.testing.assert_close(tiles_triton.product(x, w, *tile).double(), exact, rtol=1e-5, atol=1e-4)
torch.testing.assert_close(tiles_triton.product_untiled(x, w).double(), exact, rtol=1e-5, atol=1e-4)
for shape in ((4, 2, 45, 48), (2, 1, 33, 64)):
    q, k, v, exact = attention_case(*shape)
    for block, tile in ((16, 16), (32, 16), (16, 64)):
        found = tiles_triton.attention(q, k, v, block, tile)
        torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)
print("equal")
"""


def test_the_triton_kernels_agree_in_the_interpreter():
    pytest.importorskip("triton")
    path = os.pathsep.join(sys.path)
    done = python("-c", TRITON, TRITON_INTERPRET="1", PYTHONPATH=path)
    assert done.stdout.strip() == "equal", done.stderr
