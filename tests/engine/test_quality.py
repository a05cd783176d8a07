"""The figures of quality agree with numpy, and every lossy optimization stays within the loss that it states."""

import numpy as np
import pytest
import torch

from engine.measure.quality import FIGURES, MANY, Comparison, nats, price
from engine.refusal import Refusal
from engine.registry import optimizations
from engine.spec import Lane
from tests.engine.contract import Case, configurations, ids, settled
from tests.engine.reading import MODEL, compared, quality

POSITIONS, WORDS = 200, 50


def lossy() -> list[Case]:
    return [case for case in configurations() if not optimizations()[case[0]].lossless]


def drawn(seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of two models and the tokens that came."""
    rng = np.random.default_rng(seed)
    theirs = rng.normal(0, 3, (POSITIONS, WORDS)).astype(np.float32)
    mine = theirs + rng.normal(0, 0.3, theirs.shape).astype(np.float32)
    return mine, theirs, rng.integers(0, WORDS, POSITIONS)


def by_numpy(mine: np.ndarray, theirs: np.ndarray, came: np.ndarray) -> dict[str, float]:
    """The same figures by their definitions."""
    p, q = (np.exp(x.astype(float) - x.max(-1, keepdims=True)) for x in (theirs, mine))
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    divergence = (p * np.log(p / q)).sum(-1)
    surprise = [-np.log(x[np.arange(len(came)), came]).mean() for x in (q, p)]
    return {
        "kl_mean": divergence.mean(),
        "kl_p99": np.quantile(divergence, 0.99),
        "top1": (mine.argmax(-1) == theirs.argmax(-1)).mean(),
        "perplexity_ratio": np.exp(surprise[0] - surprise[1]),
    }


@pytest.mark.parametrize("piece", [POSITIONS, MANY, 7])
def test_the_figures_are_those_of_numpy_in_pieces_of_any_size(piece):
    mine, theirs, came = drawn()
    comparison = Comparison()
    for start in range(0, POSITIONS, piece):
        comparison.add(*(torch.tensor(part[start : start + piece]) for part in (mine, theirs, came)))
    found = vars(comparison.quality())
    assert found.pop("tokens") == POSITIONS
    assert found == pytest.approx(by_numpy(mine, theirs, came), abs=1e-4)


def scales(mine: np.ndarray) -> np.ndarray:
    """A group of scales that is twice too large, as a broken quantization would leave it."""
    return np.concatenate([mine[:, : WORDS // 2] * 2, mine[:, WORDS // 2 :]], -1)


@pytest.mark.parametrize("corrupted", [scales, lambda mine: mine[:, ::-1].copy(), lambda mine: mine * 0.25])
def test_corrupted_scales_stand_out(corrupted):
    mine, theirs, came = (torch.tensor(part) for part in drawn())
    sound = compared(mine, theirs, came)
    broken = compared(torch.tensor(corrupted(mine.numpy())), theirs, came)
    assert broken.kl_mean > 5 * sound.kl_mean


def test_a_model_is_no_distance_from_itself_and_shapes_must_fit():
    logits, came = torch.randn(10, 7), torch.arange(10) % 7
    same = compared(logits, logits, came)
    assert (same.kl_mean, same.top1, same.perplexity_ratio, same.kl_p99) == (0, 1, 1, None)
    assert compared(logits + 5, logits, came).kl_mean == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="do not fit"):
        compared(logits, logits[:9], came)


def test_words_that_cannot_be_said_do_not_spoil_the_figures_and_what_is_no_number_is_refused():
    logits, came = torch.randn(10, 7), torch.arange(10) % 6
    silent = logits.index_fill(-1, torch.tensor([6]), float("-inf"))
    assert compared(silent, silent, came).kl_mean == 0
    for broken in (silent, logits * float("nan")):
        with pytest.raises(Refusal, match="not numbers"):
            compared(broken, logits, came)


def lane(**text: float) -> dict:
    return {"name": "B", "quality": {"reference": "the unquantized model in float32", "text": text}}


def test_the_price_of_speed_is_one_plain_sentence():
    said = price(lane(kl_mean=0.2734, top1=0.661))
    assert said == (
        " Lane B is at a KL divergence of 0.27 nats from the unquantized model in float32: "
        "it prefers the same next token at 66 % of positions."
    )
    assert price({"name": "A", "quality": None}) == ""
    unknown = {"name": "B", "quality": {"why": "It could not be read."}}
    assert price(unknown) == " What lane B loses is unknown: It could not be read."
    assert [nats(value) for value in (0.0, 2e-5, 0.00094, 1.26)] == [
        "0 nats", "less than 0.0001 nats", "0.00094 nats", "1.3 nats"]  # fmt: skip


def test_a_figure_that_is_not_known_is_none():
    assert [row.read({"quality": None}) for row in FIGURES] == [None] * len(FIGURES)
    assert [row.read(lane(top1=0.5)) for row in FIGURES] == [None, None, 50.0, None]


@pytest.mark.parametrize("name", optimizations())
def test_who_is_lossy_states_the_loss(name):
    part = optimizations()[name]
    stated = part().expected_loss()
    assert (stated is None) == part.lossless
    assert part.lossless or (stated[0] >= 0 and 0 <= stated[1] <= 1)


@pytest.mark.parametrize("case", configurations(), ids=ids)
def test_what_is_lossy_changes_the_numbers_of_the_plan_and_nothing_else_does(case):
    """Lanes are judged by engine.plan.LOSS: a lossy optimization that it does not know would go unjudged."""
    name, knobs = case
    plan, plain = settled(Lane(opts={name: knobs}), MODEL), settled(Lane(), MODEL)
    if plan is not None and not (name == "precision" and plan.dtype == plain.dtype):
        assert (plan.loss() != plain.loss()) == (not optimizations()[name].lossless)
    if plan is not None:
        assert settled(Lane(opts={name: knobs}).exact(), MODEL).loss() == settled(Lane().exact(), MODEL).loss()


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
