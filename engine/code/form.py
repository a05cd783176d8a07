"""What every form of code is: a text to be copied, and what it cannot express, in comments."""

from dataclasses import dataclass
from textwrap import wrap

WIDTH = 110


@dataclass(frozen=True)
class Code:
    """`text` to be copied; `beyond` says, a sentence each, what it cannot express of the lane."""

    text: str
    beyond: tuple[str, ...]

    def to_dict(self) -> dict:
        """JSON-ready."""
        return {"text": self.text, "beyond": list(self.beyond)}


def commented(sentences: list[str] | tuple[str, ...], head: str) -> list[str]:
    """Sentences as the lines of a comment under `head`; nothing where there are none."""
    lines = [line for text in sentences for line in wrap(text, WIDTH, initial_indent="# - ", subsequent_indent="#   ")]
    return [f"# {head}", *lines] if lines else []


def one_line(text: str) -> str:
    """Text from a person, fit for a comment: it cannot begin a new line."""
    return " ".join(text.split())
