"""Speculative decoding that guesses from the prompt itself."""

from typing import ClassVar

from pydantic import Field

from engine.optimizations import Optimization
from engine.plan import Plan


class PromptLookup(Optimization):
    """Guess the next tokens from the text so far, then check all guesses in one step.

    If the last few tokens occurred before, what followed them then is a cheap guess for what follows now.
    The model checks the guesses in a single pass and keeps those that it would have written itself, so the
    text is unchanged. Summaries, code edits and anything that repeats its input go several tokens a step.
    Poems and free talk offer nothing to copy: wrong guesses make a step dearer and it may lose.
    Sources: Leviathan et al. 2023, arXiv:2211.17192; Saxena 2023, prompt lookup decoding.
    """

    title: ClassVar[str] = "Prompt lookup"
    group: ClassVar[str] = "speculation"
    moves: ClassVar[dict[str, str]] = {"tpot_ms": "down"}
    reasons: ClassVar[dict[str, str]] = {
        "faster": "guesses copied from the text were right often enough to take several tokens a step",
        "slower": "most guesses were wrong, and checking them made each step dearer",
        "same": "what right guesses saved, wrong ones cost again",
    }

    guesses: int = Field(5, ge=1, le=16, title="Guesses", description="Tokens proposed in one step (draft length).")
    ngram: int = Field(
        2, ge=1, le=8, title="Match length", description="Longest run of tokens looked up in the text so far."
    )

    def on_transformers(self, plan: Plan) -> None:
        plan.speculation = {"kind": "prompt_lookup", "guesses": self.guesses, "ngram": self.ngram}

    on_generate = on_transformers

    def settle(self, plan: Plan) -> str | None:
        if plan.batch > 1:
            return "Prompt lookup checks the guesses of one request at a time: switch batching off, or prompt lookup."
        if plan.cache == "off":
            return (
                "Prompt lookup takes wrong guesses back out of the KV cache: "
                "set the KV cache to dynamic or static, or switch prompt lookup off."
            )
        if plan.backend == "generate" and plan.cache == "static":
            return (
                "transformers' generate cannot take guesses back from a static cache: "
                "set the KV cache to dynamic, or use the transformers backend."
            )
        return None
