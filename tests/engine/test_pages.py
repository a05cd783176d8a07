"""Weights side by side in few blocks of memory."""

import re
from pathlib import Path

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


def test_a_block_is_this_process_s_own_and_asks_for_large_pages():
    """Shared memory would be given small ones where the system has large pages for a process's own memory alone."""
    kept, maps = block(BLOCK), Path("/proc/self/smaps")
    ranges = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", maps.read_text()) if maps.exists() else []
    for found in ranges[1:]:
        first, last, rights = re.match(r"(\w+)-(\w+) (\S+)", found).groups()
        if int(first, 16) <= kept.data_ptr() < int(last, 16):
            assert rights == "rw-p" and " hg" in found
