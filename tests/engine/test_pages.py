"""Weights side by side in few blocks of memory."""

import torch

from engine.kernels.pages import BLOCK, LINE, Pages, block


def test_tensors_keep_their_numbers_and_begin_at_cache_lines():
    pages = Pages()
    given = [torch.randn(3, 5), torch.arange(7, dtype=torch.int8), torch.randn(4, 6).bfloat16().t()]
    kept = [pages.keep(tensor) for tensor in given]
    assert all(torch.equal(one, other) and other.is_contiguous() for one, other in zip(given, kept, strict=True))
    places = [tensor.data_ptr() for tensor in kept]
    assert all(place % LINE == 0 for place in places)
    assert places == sorted(places) and places[-1] - places[0] == 2 * LINE


def test_what_does_not_fit_gets_a_block_of_its_own():
    pages = Pages()
    pages.keep(torch.zeros(3))
    large = pages.keep(torch.ones(BLOCK + 1, dtype=torch.int8))
    assert large.sum() == BLOCK + 1


def test_a_block_is_zeros():
    assert not block(4096).any()
