"""From prompts to requests: token ids checked against the model's context, lengths, and batches."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.refusal import Refusal


@dataclass(frozen=True)
class Batch:
    """Requests that share their steps: the number, token ids and output length of each.

    `arrived` holds the moments at which they arrived on the worker's clock, in seconds; None where they come in turn.
    """

    requests: tuple[int, ...]
    prompts: tuple[tuple[int, ...], ...]
    lengths: tuple[int, ...]
    arrived: tuple[float, ...] | None = None

    @property
    def width(self) -> int:
        """Tokens of the longest prompt: shorter ones are padded to it on the left."""
        return max(len(ids) for ids in self.prompts)

    @property
    def longest(self) -> int:
        """Tokens of the longest answer."""
        return max(self.lengths)

    @property
    def tokens(self) -> int:
        """Tokens of the request that is longest with its answer."""
        return max(len(ids) + length for ids, length in zip(self.prompts, self.lengths, strict=True))

    @property
    def pad(self) -> list[int]:
        """Pad tokens on the left of each prompt."""
        return [self.width - len(ids) for ids in self.prompts]

    @property
    def ragged(self) -> bool:
        return any(self.pad)


def encode(
    tokenizer: Any, prompts: Sequence[str], chat: bool, vocabulary: int, system: str = ""
) -> list[tuple[int, ...]]:
    """Token ids of each prompt, in the model's chat template where it has one and `chat` asks for it.

    `system` stands before every prompt: as the template's system message, or as plain text. Ids beyond
    `vocabulary` wrap around, which happens only to random weights with a borrowed tokenizer.
    """
    wrap = chat and bool(tokenizer.chat_template)
    before = [{"role": "system", "content": system}] if system else []
    encoded = []
    for prompt in prompts:
        if wrap:
            messages = [*before, {"role": "user", "content": prompt}]
            made = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        else:
            made = tokenizer(f"{system}\n\n{prompt}" if system else prompt)
        encoded.append(tuple(token % vocabulary for token in made["input_ids"]))
    return encoded


def check_context(encoded: Sequence[tuple[int, ...]], new_tokens: int, context: int | None) -> None:
    """Raises Refusal if a prompt with its answer does not fit into the model's context (in tokens)."""
    for number, ids in enumerate(encoded):
        if not ids:
            raise Refusal(f"Prompt {number + 1} has no tokens.", "Write at least one word.")
        if context and len(ids) + new_tokens > context:
            raise Refusal(
                f"Prompt {number + 1} has {len(ids)} tokens and {new_tokens} more are to be generated, "
                f"but the model's context holds {context}.",
                f"Shorten the prompt or the output by {len(ids) + new_tokens - context} tokens.",
            )


def lengths(workload: Any) -> list[int]:
    """Tokens to generate for each request: all alike, or spread evenly at random from the workload's seed."""
    most = workload.max_new_tokens
    draw = random.Random(workload.seed)
    least = max(1, round(most * (1 - workload.spread)))
    return [draw.randint(least, most) for _ in range(workload.count)]


def everything(encoded: Sequence[tuple[int, ...]], workload: Any) -> Batch:
    """All requests of a workload, its prompts in turn, as if they were one batch."""
    prompts = tuple(encoded[number % len(encoded)] for number in range(workload.count))
    return Batch(tuple(range(workload.count)), prompts, tuple(lengths(workload)))


def pick(batch: Batch, places: Sequence[int], arrived: tuple[float, ...] | None = None) -> Batch:
    """The requests at `places` of a batch, as a batch of their own."""

    def taken(values: tuple) -> tuple:
        return tuple(values[place] for place in places)

    return Batch(taken(batch.requests), taken(batch.prompts), taken(batch.lengths), arrived)


def batches(whole: Batch, size: int) -> list[Batch]:
    """Requests in order, `size` at a time; the last batch may be smaller."""
    count = len(whole.requests)
    return [pick(whole, range(first, min(first + size, count))) for first in range(0, count, size)]
