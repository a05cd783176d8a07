"""Speculative decoding that guesses from the prompt itself."""

from typing import ClassVar

from pydantic import Field

from engine.optimizations import Speculation
from engine.plan import Plan


class PromptLookup(Speculation):
    """Guess the next tokens from the text so far, then check all guesses in one step.

    If the last few tokens occurred before, what followed them then is a cheap guess for what follows now.
    The model checks the guesses in a single pass and keeps those that it would have written itself: greedy text
    is unchanged, sampled text keeps its probabilities. Summaries, code edits and anything that repeats its input
    go several tokens a step.
    Poems and free talk offer nothing to copy: wrong guesses make a step dearer and it may lose.
    Sources: Leviathan et al. 2023, arXiv:2211.17192; Saxena 2023, prompt lookup decoding.
    """

    title: ClassVar[str] = "Prompt lookup"
    reasons: ClassVar[dict[str, str]] = {
        "faster": "guesses copied from the text were right often enough to take several tokens a step",
        "slower": "most guesses were wrong, and checking them made each step dearer",
        "same": "what right guesses saved, wrong ones cost again",
    }

    ngram: int = Field(
        2, ge=1, le=8, title="Match length", description="Longest run of tokens looked up in the text so far."
    )

    def on_transformers(self, plan: Plan) -> None:
        self.guess(plan, ngram=self.ngram)
        plan.expected["speculation.ngram"] = self.ngram

    on_generate = on_transformers

    def settle(self, plan: Plan) -> str | None:
        if self.adaptive and plan.backend == "generate":
            return (
                "transformers' generate looks up the same number of guesses in every step: "
                "switch adaptive off, or use the Pitlane loop."
            )
        return super().settle(plan)

    def badge(self) -> str:
        return f"prompt lookup {self.drafts()}"
