"""The dotted words: every meaning is a sentence, and the phases that are explained are those that a run has."""

import re

from components.race import PHASES
from components.theme import STATIC

SOURCE = (STATIC / "words.js").read_text("utf-8")


def told(name: str) -> dict[str, str]:
    """The words and meanings of one of its tables."""
    table = re.search(rf"const {name} = {{\n(.*?)^}};", SOURCE, re.DOTALL | re.MULTILINE)[1]
    return {quoted or bare: text for quoted, bare, text in re.findall(r'^  (?:"(.+?)"|(\w+)): "(.+)",$', table, re.M)}


def test_every_word_has_a_sentence():
    words = told("WORDS")
    asked = (
        "KV cache, step, operator, bfloat16, prefill, decode, launch, nats, perplexity ratio, typical round, reference"
    )
    asked += ", withdrawn, W, X, GFLOP/s, L1d, L2, L3, vendor's library, lane, token"
    assert set(asked.split(", ")) <= set(words)
    assert all(text[0].isupper() or text[0].isdigit() for text in words.values())
    assert all(text.endswith(".") for text in words.values())


def test_the_phases_that_are_explained_are_phases_of_a_run():
    assert told("PHASES") and set(told("PHASES")) <= set(PHASES.values())
