"""From prompts to token ids, checked against the model's context, and grouped into batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.refusal import Refusal


@dataclass(frozen=True)
class Batch:
    """Requests that share their steps: the number of the first, and the token ids of each."""

    first: int
    prompts: tuple[tuple[int, ...], ...]

    @property
    def width(self) -> int:
        """Tokens of the longest prompt: shorter ones are padded to it on the left."""
        return max(len(ids) for ids in self.prompts)

    @property
    def ragged(self) -> bool:
        return len({len(ids) for ids in self.prompts}) > 1

    @property
    def requests(self) -> tuple[int, ...]:
        return tuple(range(self.first, self.first + len(self.prompts)))


def encode(tokenizer: Any, prompts: Sequence[str], chat: bool, vocabulary: int) -> list[tuple[int, ...]]:
    """Token ids of each prompt, in the model's chat template where it has one and `chat` asks for it.

    Ids beyond `vocabulary` wrap around, which happens only to random weights with a borrowed tokenizer.
    """
    wrap = chat and bool(tokenizer.chat_template)
    encoded = []
    for prompt in prompts:
        if wrap:
            message = [{"role": "user", "content": prompt}]
            made = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=True)
        else:
            made = tokenizer(prompt)
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


def batches(encoded: Sequence[tuple[int, ...]], size: int) -> list[Batch]:
    """Requests in order, `size` at a time; the last batch may be smaller."""
    return [Batch(first, tuple(encoded[first : first + size])) for first in range(0, len(encoded), size)]
