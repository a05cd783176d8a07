"""The figures of quality agree with numpy, and every lossy optimization stays within the loss that it states."""

import numpy as np
import pytest
import torch

from engine.measure.quality import compare
from engine.registry import optimizations
from engine.spec import Lane
from tests.engine.contract import Case, configurations, ids, settled
from tests.engine.reading import MODEL, quality


def lossy() -> list[Case]:
    return [case for case in configurations() if not optimizations()[case[0]].lossless]


def test_the_figures_are_those_of_numpy():
    rng = np.random.default_rng(1)
    mine, theirs = rng.normal(0, 3, (2, 200, 50)).astype(np.float32)
    ids = rng.integers(0, 50, 200)
    p, q = (np.exp(x - x.max(-1, keepdims=True)) for x in (theirs.astype(float), mine.astype(float)))
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    divergence = (p * np.log(p / q)).sum(-1)
    surprise = [-np.log(x[np.arange(199), ids[1:]]).mean() for x in (q, p)]
    found = compare(torch.tensor(mine), torch.tensor(theirs), torch.tensor(ids))
    assert found.kl_mean == pytest.approx(divergence.mean(), abs=1e-4)
    assert found.kl_p99 == pytest.approx(np.quantile(divergence, 0.99), abs=1e-4)
    assert found.top1 == pytest.approx((mine.argmax(-1) == theirs.argmax(-1)).mean(), abs=1e-9)
    assert found.perplexity_ratio == pytest.approx(np.exp(surprise[0] - surprise[1]), rel=1e-4)


def test_a_model_is_no_distance_from_itself_and_shapes_must_fit():
    logits, ids = torch.randn(10, 7), torch.arange(10) % 7
    same = compare(logits, logits, ids)
    assert (same.kl_mean, same.top1, same.perplexity_ratio) == (0, 1, 1)
    assert compare(logits + 5, logits, ids).kl_mean == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="do not fit"):
        compare(logits, logits[:9], ids)


@pytest.mark.parametrize("name", optimizations())
def test_who_is_lossy_states_the_loss(name):
    part = optimizations()[name]
    stated = part().expected_loss()
    assert (stated is None) == part.lossless
    assert part.lossless or (stated[0] >= 0 and 0 <= stated[1] <= 1)


@pytest.mark.model
@pytest.mark.parametrize("case", lossy(), ids=ids)
def test_the_loss_is_within_what_is_stated(case):
    name, knobs = case
    if settled(Lane(opts={name: knobs}), MODEL) is None:
        return
    found = quality(case)
    most, least = optimizations()[name](**knobs).expected_loss()
    assert found.kl_mean <= most, found
    assert found.top1 >= least, found
