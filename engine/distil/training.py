"""Training: the draft learns the distribution from which the whole model chose each token of its own text."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from engine.decode.trained import build
from engine.distil.writer import Written

HELD_OUT = 64
"""One row of so many is kept from training, to be asked about afterwards."""
WARM = 0.02
LEAST = 0.05


@dataclass(frozen=True)
class Lesson:
    """How it learns: the largest step width, tokens in a step, and how long a gradient may be."""

    rate: float = 1e-3
    tokens: int = 32_768
    clip: float = 1.0


@dataclass(frozen=True)
class Insight:
    """How well a draft predicts: mean KL divergence over its own vocabulary in nats, and the share of tokens at
    which its likeliest one is the whole model's, over all tokens."""

    divergence: float
    agreement: float


def frequent(written: list[Written], count: int, always: tuple[int, ...], vocabulary: int) -> torch.Tensor:
    """Ids of the `count` tokens that the model chose most often, in order; those in `always` are among them."""
    seen = torch.zeros(vocabulary, dtype=torch.long, device=written[0].ids.device)
    for text in written:
        chosen = text.ids[:, 1:][text.made[:, :-1]]
        seen += torch.bincount(chosen, minlength=vocabulary)
    seen[list(always)] = seen.max() + 1
    return seen.topk(count).indices.sort().values


def student(whole: Any, layers: tuple[int, ...], kept: torch.Tensor) -> Any:
    """A draft in float32 that begins with these layers of the whole model, its norm, and its rows for `kept`."""
    model = build(whole, len(layers), kept, torch.float32)
    with torch.no_grad():
        for mine, number in zip(model.model.layers, layers, strict=True):
            mine.load_state_dict(whole.model.layers[number].state_dict())
        model.model.norm.load_state_dict(whole.model.norm.state_dict())
        model.lm_head.weight.copy_(whole.get_output_embeddings().weight[kept])
    return model.requires_grad_(True)


class Teacher:
    """The whole model's choices, told by the states that it had when it wrote."""

    def __init__(self, whole: Any, kept: torch.Tensor):
        self.head = whole.get_output_embeddings().weight.detach()
        self.kept, self.rows = kept, self.head[kept]

    def shares(self, states: torch.Tensor) -> torch.Tensor:
        """Log-probabilities [tokens, kept] over the draft's vocabulary; states are [tokens, width]."""
        return functional.linear(states, self.rows).float().log_softmax(-1)

    def choices(self, states: torch.Tensor) -> torch.Tensor:
        """The likeliest token of all, [tokens]."""
        return functional.linear(states, self.head).argmax(-1)


def train(
    model: Any, teacher: Teacher, written: list[Written], lesson: Lesson, gone: Callable[[], float]
) -> Iterator[tuple[int, float]]:
    """Learn until `gone()`, the share of the time that has passed, is 1; tokens seen so far and loss of each step.

    The step width follows a cosine over the time: it ends small, whenever the end comes.
    """
    taught = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(taught, lesson.rate, betas=(0.9, 0.95), fused=True)
    seen = 0
    model.train()
    while (share := gone()) < 1:
        rate = lesson.rate * min(1.0, (share + 1e-3) / WARM) * (LEAST + (1 - LEAST) * _cosine(share))
        for group in optimizer.param_groups:
            group["lr"] = rate
        text = written[int(torch.randint(len(written), ()))]
        rows = _rows(text, lesson.tokens)
        loss = divergence(model, teacher, text, rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(taught, lesson.clip)
        optimizer.step()
        optimizer.zero_grad()
        seen += rows.numel() * text.ids.shape[1]
        yield seen, loss.item()
    model.eval()


def divergence(model: Any, teacher: Teacher, text: Written, rows: torch.Tensor) -> torch.Tensor:
    """Mean KL divergence, in nats, from what the whole model thought at the tokens of its own choice."""
    made = text.made[rows]
    guessed = functional.log_softmax(_known(model, text.ids[rows], made).float(), -1)
    meant = teacher.shares(text.states[rows][made])
    return functional.kl_div(guessed, meant, reduction="batchmean", log_target=True)


@torch.no_grad()
def examine(model: Any, teacher: Teacher, written: list[Written], rows: int = 32) -> Insight:
    """How well the draft predicts rows that it never learnt from."""
    found = []
    for text in written:
        some = torch.arange(0, len(text.ids), HELD_OUT, device=text.ids.device)[:rows]
        made, states = text.made[some], text.states[some]
        guesses = teacher.kept[_known(model, text.ids[some], made).argmax(-1)]
        right = (guesses == teacher.choices(states[made])).float().mean()
        found.append(torch.stack((divergence(model, teacher, text, some), right)))
    return Insight(*torch.stack(found).mean(0).tolist())


def _known(model: Any, ids: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    """The draft's logits over its own vocabulary, [tokens, kept], at the places that are `made`."""
    device = ids.device.type
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        states = model.model(input_ids=ids, use_cache=False).last_hidden_state
        return functional.linear(states[made], model.lm_head.weight)


def _rows(text: Written, tokens: int) -> torch.Tensor:
    """Rows for one step, drawn by chance from those that are not held out."""
    count = max(1, min(len(text.ids), tokens // text.ids.shape[1]))
    rows = torch.randint(len(text.ids), (count,), device=text.ids.device)
    return torch.where(rows % HELD_OUT == 0, (rows + 1) % len(text.ids), rows)


def _cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2
