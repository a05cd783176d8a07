"""Sampled text keeps the model's distribution, whatever guesses: chi-square on a small vocabulary."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers

import engine.decode.rejection as rejection
from engine.decode.drafting import KINDS, Drafting
from engine.decode.drafts import Draft, Guesses
from engine.decode.speculate import Verifier
from engine.decode.stepper import Growing, keep_all
from tests.engine.drafting import KNOBS, Guessing, near, one_thread, plan, sampled  # noqa: F401

WORDS = 6
ROWS = 100_000
PROMPT = (1, 2, 3, 1, 2)
SURE, IMPOSSIBLE = 1e-3, 1e-6
"""Chances: what a right sampler may fall below once in a thousand seeds, and what a wrong one must."""


def little(seed: int, noise: float = 0.35) -> Any:
    """A model over six tokens, small enough to read a hundred thousand rows at once."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=WORDS, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, initializer_range=noise, tie_word_embeddings=False,
        eos_token_id=0, pad_token_id=0, bos_token_id=0,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


@dataclass
class Scene:
    """The same prompt in every row: the whole model's stepper, what guesses beside it, and the source of luck."""

    model: Any
    verifier: Verifier
    draft: Draft
    generator: torch.Generator

    def guess(self, kind: str, last: torch.Tensor) -> Guesses:
        """Two guesses for every row; what is copied from the text is the same everywhere."""
        if kind == "prompt_lookup":
            ids = self.draft.propose(list(PROMPT), 2).ids
            return Guesses(ids.expand(len(last), -1))
        return self.draft.chain(last, 2)


def scene(kind: str) -> Scene:
    """Everything has read the prompt but for its last token, in one row; then the row is copied."""
    model, sampling = little(1), sampled(7)
    generator = sampling.generator(model.device)
    whole = Growing(model, [0], keep_all(model.config))
    drafting = Drafting()
    drafting.model = near(model, 0.25)
    draft = KINDS[kind](drafting, plan(kind, guesses=2), whole, sampling, generator, 64)
    whole.prefill(torch.tensor([PROMPT[:-1]]))
    draft.begin(PROMPT[:-1])
    own = getattr(draft, "stepper", None)
    for stepper in (whole, own) if own else (whole,):
        stepper.cache.batch_repeat_interleave(ROWS)
    return Scene(model, Verifier(whole, sampling, generator, 2), draft, generator)


@torch.inference_mode()
def pairs(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The first two tokens that follow the prompt, drawn with guesses; counts [36], and the model's own shares [36].

    Where the first guess was wrong, the second token is drawn as the next step would draw it.
    """
    one = scene(kind)
    last = torch.full((ROWS, 1), PROMPT[-1])
    guesses = one.guess(kind, last)
    right, following = one.verifier.check(last, guesses)
    p = own_shares(one.model)
    first = torch.where(right > 0, guesses.ids[:, 0], following)
    later = torch.multinomial(p[1][first], 1, generator=one.generator)[:, 0]
    second = torch.where(right > 1, guesses.ids[:, 1], torch.where(right == 1, following, later))
    counts = torch.bincount(first * WORDS + second, minlength=WORDS**2)
    return counts, (p[0][:, None] * p[1]).flatten()


def own_shares(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's distribution after the prompt, [words], and after each next token, [words, words]."""
    texts = torch.tensor([[*PROMPT, word] for word in range(WORDS)])
    shares = model(texts).logits.double().softmax(-1)
    return shares[0, -2], shares[:, -1]


def chance(counts: torch.Tensor, shares: torch.Tensor) -> float:
    """How likely counts this far off are, if `shares` are the truth: Pearson's chi-square, upper tail."""
    wanted = shares * counts.sum()
    statistic = ((counts - wanted) ** 2 / wanted).sum()
    return float(torch.special.gammaincc(torch.tensor((len(counts) - 1) / 2).double(), statistic / 2))


@pytest.mark.parametrize("kind", KNOBS)
def test_two_tokens_drawn_with_guesses_are_distributed_as_without(kind):
    counts, shares = pairs(kind)
    assert counts.sum() == ROWS
    assert chance(counts, shares) > SURE


@pytest.mark.parametrize("kind", KNOBS)
def test_keeping_every_guess_is_caught(kind, monkeypatch):
    """Sabotage: the distribution is the draft's."""
    monkeypatch.setattr(rejection, "keeps", lambda p, q, luck: torch.ones_like(luck, dtype=torch.bool))
    assert chance(*pairs(kind)) < IMPOSSIBLE


@pytest.mark.parametrize("kind", KNOBS)
def test_drawing_from_the_whole_distribution_after_a_rejection_is_caught(kind, monkeypatch):
    """Sabotage: what was just rejected may be drawn again, so guesses come too often."""
    monkeypatch.setattr(rejection, "leftover", lambda p, q: p)
    assert chance(*pairs(kind)) < IMPOSSIBLE


def test_forgetting_how_likely_the_draft_was_is_caught(monkeypatch):
    """Sabotage: a drawn guess is judged as if it had been certain."""
    monkeypatch.setattr(rejection, "keeps", lambda p, q, luck: luck < p)
    assert chance(*pairs("draft_model")) < IMPOSSIBLE


@pytest.mark.parametrize("kind", KNOBS)
@torch.inference_mode()
def test_the_whole_loop_draws_what_the_model_expects(kind):
    """Long sampled texts, step after step: each word comes as often as the model gave it a chance, given the text.

    The surplus of a word over its chances is a sum of independent surprises, so it is about normal.
    """
    model = little(1)
    guessing = Guessing(model, plan(kind, guesses=3), near(model, 0.25))
    surplus, spread = torch.zeros(WORDS).double(), torch.zeros(WORDS).double()
    for seed in range(12):
        text = list(PROMPT) + [t for s in guessing.steps(PROMPT, 40, sampled(seed)) for t in s.tokens[0]]
        shares = model(torch.tensor([text])).logits[0, len(PROMPT) - 1 : -1].double().softmax(-1)
        came = torch.nn.functional.one_hot(torch.tensor(text[len(PROMPT) :]), WORDS)
        surplus += (came - shares).sum(0)
        spread += (shares * (1 - shares)).sum(0)
    assert (surplus / spread.sqrt()).abs().max() < 4
    found = guessing.drafting.effective()["speculation"]
    assert 0 < found["accepted"] < found["drafted"]


def test_a_sure_guess_is_kept_and_an_impossible_one_is_not():
    p = torch.tensor([[[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]]])
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        right, following = rejection.judge(p, torch.tensor([[1]]), None, generator)
        assert right.item() == 1 and following.item() in (0, 1)
        right, following = rejection.judge(p, torch.tensor([[2]]), None, generator)
        assert right.item() == 0 and following.item() == 1


def test_rounding_that_leaves_nothing_falls_back_on_the_model():
    p = torch.tensor([[0.25, 0.75]])
    assert torch.equal(rejection.leftover(p, p), p)
    assert not math.isnan(rejection.leftover(p, p).sum())


def test_the_same_seed_draws_the_same_text():
    model = little(1)
    texts = [
        [s.tokens for s in Guessing(model, plan("draft_model"), near(model)).steps(PROMPT, 20, sampled(seed))]
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]
