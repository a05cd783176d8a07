"""Prompt lookup: what followed the last few tokens the last time they occurred."""


def propose(tokens: list[int], guesses: int, ngram: int) -> list[int]:
    """Up to `guesses` tokens that followed the most recent earlier occurrence of the last `ngram` tokens.

    Shorter matches are tried when longer ones are not found; empty when nothing matches.
    Source: Saxena 2023, prompt lookup decoding.
    """
    for size in range(min(ngram, len(tokens) - 1), 0, -1):
        tail = tokens[-size:]
        for start in range(len(tokens) - size - 1, -1, -1):
            if tokens[start : start + size] == tail:
                return tokens[start + size : start + size + guesses]
    return []
