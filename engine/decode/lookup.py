"""Prompt lookup: what followed the last few tokens the last time they occurred."""

from collections.abc import Iterable


class Index:
    """Remembers, for every run of up to `ngram` tokens, where it was last followed by something.

    Adding a token and looking one up cost the same however long the text is.
    Source: Saxena 2023, prompt lookup decoding.
    """

    def __init__(self, ngram: int):
        self.ngram = ngram
        self.tokens: list[int] = []
        self.follower: dict[tuple[int, ...], int] = {}

    def extend(self, tokens: Iterable[int]) -> None:
        """Continue the text."""
        for token in tokens:
            place = len(self.tokens)
            for size in range(1, min(self.ngram, place) + 1):
                self.follower[tuple(self.tokens[place - size :])] = place
            self.tokens.append(token)

    def propose(self, count: int) -> list[int]:
        """Up to `count` tokens that followed the most recent earlier occurrence of the text's end.

        Shorter matches are tried when longer ones are not found; empty when nothing matches.
        """
        for size in range(min(self.ngram, len(self.tokens)), 0, -1):
            place = self.follower.get(tuple(self.tokens[-size:]))
            if place is not None:
                return self.tokens[place : place + count]
        return []
