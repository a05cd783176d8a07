"""From token ids back to text, piece by piece, without ever splitting a character."""

from dataclasses import replace
from typing import Any

from tokenizers.decoders import DecodeStream

from engine.event import Step


class Texts:
    """One turn's detokenizer. The pieces of a request add up to the decoding of all its tokens."""

    def __init__(self, tokenizer: Any, lengths: dict[int, int]):
        self.tokenizer, self.lengths = tokenizer, lengths
        self.vocabulary = len(tokenizer)
        self.streams: dict[int, DecodeStream] = {}
        self.ids: dict[int, list[int]] = {}
        self.said: dict[int, int] = {}

    def say(self, step: Step) -> Step:
        """The step with one piece of text for each token; a piece is empty while a character is incomplete."""
        pieces = tuple(
            tuple(self._piece(request, token % self.vocabulary) for token in tokens)
            for request, tokens in zip(step.requests, step.tokens, strict=True)
        )
        return replace(step, text=pieces)

    def _piece(self, request: int, token: int) -> str:
        ids = self.ids.setdefault(request, [])
        stream = self.streams.setdefault(request, DecodeStream(skip_special_tokens=True))
        ids.append(token)
        piece = stream.step(self.tokenizer.backend_tokenizer, token) or ""
        if len(ids) == self.lengths[request]:
            whole = self.tokenizer.decode(ids, skip_special_tokens=True)
            piece = whole[self.said.get(request, 0) :]
        self.said[request] = self.said.get(request, 0) + len(piece)
        return piece
