"""Rejection sampling: which guesses a model keeps, so that its text is distributed as if nobody had guessed."""

import torch


def judge(
    target: torch.Tensor, guesses: torch.Tensor, draft: torch.Tensor | None, generator: torch.Generator | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """How many guesses of each row are kept, [rows], and the token that follows them, [rows].

    `target` [rows, n + 1, vocabulary] holds the model's distributions p, `guesses` [rows, n] the guesses, `draft`
    [rows, n, vocabulary] the distributions q that they were drawn from (None: each had all the probability).
    A guess is kept with probability min(1, p / q); in place of the first that is not, a token is drawn from what
    q leaves of p. Together that is a draw from p. Source: Leviathan et al. 2023, arXiv:2211.17192, algorithm 1.
    """
    if draft is None:
        draft = torch.nn.functional.one_hot(guesses, target.shape[-1]).to(target.dtype)
    luck = torch.rand(guesses.shape, device=target.device, generator=generator)
    kept = keeps(_of(target[:, :-1], guesses), _of(draft, guesses), luck)
    right = kept.long().cumprod(-1).sum(-1)
    nothing = torch.zeros_like(target[:, :1])
    shares = leftover(_at(target, right), _at(torch.cat((draft, nothing), 1), right))
    return right, torch.multinomial(shares, 1, generator=generator)[:, 0]


def keeps(p: torch.Tensor, q: torch.Tensor, luck: torch.Tensor) -> torch.Tensor:
    """Whether a guess of probability `p` under the model and `q` under the draft is kept: luck < p / q."""
    return luck * q < p


def leftover(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """The positive part of p - q, [rows, vocabulary], not normalised; p itself where rounding leaves nothing."""
    rest = (p - q).clamp(min=0)
    return torch.where(rest.sum(-1, keepdim=True) > 0, rest, p)


def agree(chosen: torch.Tensor, guesses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The greedy case: guesses [rows, n] are kept while they equal the model's choices [rows, n + 1]."""
    right = (chosen[:, :-1] == guesses).long().cumprod(-1).sum(-1)
    return right, chosen.gather(1, right[:, None])[:, 0]


def _of(shares: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return shares.gather(-1, tokens[..., None])[..., 0]


def _at(shares: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return shares[torch.arange(len(places), device=places.device), places]
