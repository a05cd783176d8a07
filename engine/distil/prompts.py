"""Prompts: thousands of different ones, made by chance from templates, words and passages of the bundled book."""

import random
import re
import tomllib
from pathlib import Path
from typing import Any

import torch

from engine.measure.texts import TEXT

TABLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
PLAIN = 0.1
"""The share of rows that go on with a passage of the book itself, as nobody asked them anything."""
SENTENCES = (1, 5)
WORDS = (6, 90)
"""The sizes of a passage."""
MARK = "ANSWER"
BLANK = re.compile(r"\{(\w+)\}")


class Prompts:
    """Openings and later turns as token ids of one model; the same seed draws the same ones."""

    def __init__(self, tokenizer: Any, seed: int = 0):
        self.tokenizer, self.draw = tokenizer, random.Random(seed)
        self.sentences = re.split(r"(?<=[.!?])\s+", " ".join(TEXT.split()))

    def turns(self, rows: int, each: int, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompts for `rows` rows of `each` turns: ids [rows, each, tokens] and their sizes [rows, each].

        Shorter ones are filled up on the right. None is longer than `longest` tokens: what is beyond that is cut.
        """
        before, after = self._around()
        openings = [self.opening(*before) for _ in range(rows)]
        later = [after[0] + self.filled("later") + after[1] for _ in range(rows * (each - 1))]
        given = self.tokenizer(
            openings + later,
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=longest,
            return_tensors="pt",
        )
        order = torch.arange(rows)[:, None], rows + torch.arange(rows * (each - 1)).view(rows, each - 1)
        order = torch.cat(order, 1)
        return given["input_ids"].int()[order], given["attention_mask"].sum(-1)[order]

    def opening(self, before: str, after: str) -> str:
        """The text before a first answer: a question in the model's own form, or a piece of the book."""
        return self.passage() if self.draw.random() < PLAIN else before + self.filled("openings") + after

    def filled(self, kind: str) -> str:
        """A template of this kind with words in its blanks."""
        return BLANK.sub(lambda blank: self._word(blank[1]), self.draw.choice(TABLES[kind]))

    def passage(self) -> str:
        """A few sentences of the book."""
        while True:
            count, first = self.draw.randint(*SENTENCES), self.draw.randrange(len(self.sentences))
            text = " ".join(self.sentences[first : first + count])
            if WORDS[0] <= len(text.split()) <= WORDS[1]:
                return text

    def _word(self, name: str) -> str:
        return self.passage() if name == "passage" else self.draw.choice(TABLES["words"][name])

    def _around(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """What stands before and after a first question, and a later one, by the model's chat template.

        An answer ends with the end mark, which the model writes itself.
        """
        if not self.tokenizer.chat_template:
            return ("", "\n\n"), ("\n\n", "\n\n")
        said = {"role": "user", "content": MARK}
        first = self._rendered([said])
        both = self._rendered([said, {"role": "assistant", "content": MARK}, said])
        between = both.split(MARK)[2].removeprefix(self.tokenizer.eos_token)
        return tuple(first.split(MARK)), (between, both.split(MARK)[3])

    def _rendered(self, chat: list[dict[str, str]]) -> str:
        return self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
