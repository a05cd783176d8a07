"""Card: what a trained draft is, how it was made, and what it is worth, as a page of Markdown."""

from pathlib import Path
from statistics import fmean
from typing import Any

from engine.distil.acceptance import Accepted
from engine.models.catalogue import MODELS
from engine.models.drafts import Trained

CARD = """# A draft for {title}

A small model that guesses what {title} will write, so that several guesses are checked in one step of it.
It is of no use alone: it reads through the embedding of the whole model, which it does not bring, and it can only
say the {vocabulary:,} most frequent tokens of what the model wrote.

| | |
|---|---|
| Licence | {licence}, as that of {title} |
| Shape | {layers} layers, begun with number {numbers} of the model's own (counted from 0), and a head of {vocabulary:,} rows |
| File | {megabytes:.1f} MB: matrices as 8-bit integers with one scale a row, all else as 32-bit numbers |
| Learnt from | {written:,} tokens in {rows:,} rows that the model wrote itself, at temperatures from 0 to 1 |
| Asked for by | prompts made from the templates in `engine/distil/prompts.toml`, and passages of *Alice's Adventures in Wonderland* |
| Of these tokens | {vocabulary_share:.1%} are among those that it can say |
| Saw while learning | {seen:,} tokens |
| Aim | the model's own distribution over these tokens (KL divergence), AdamW, a cosine over the time |
| Made in | {minutes:.1f} minutes on {device}, writing included |
| On rows kept apart | {divergence:.3f} nats from the model; its likeliest token is the model's at {agreement:.1%} of the tokens |

Made by `python -m engine.distil train`, measured by `python -m engine.distil measure`.

## How far its guesses carry

{acceptance}
"""  # noqa: E501  (a row of a table is one line)
UNMEASURED = "Not measured yet: `python -m engine.distil measure` does it."
MEASURED = """Greedy text with {guesses} guesses a step, {tokens} tokens each, {dtype}, on {device}. A length of 1 would
mean that no guess was ever right. The gain is that of one run with HF modules, so it is a hint.

| Text | Tokens a step | Right guesses | Speed against no guesses | Same text |
|---|---|---|---|---|
{rows}
"""


def card(found: Trained, measured: str = UNMEASURED) -> str:
    """The page of a draft by what its file says of itself."""
    facts, model = found.facts, MODELS.get(found.facts["base"])
    return CARD.format(
        **{key: facts[key] for key in ("written", "rows", "seen", "device", "divergence", "agreement")},
        title=model.title if model else facts["base"],
        licence=model.licence if model else "the same",
        vocabulary=found.vocabulary,
        vocabulary_share=facts["vocabulary_share"],
        layers=len(found.layers),
        numbers=" and ".join(map(str, found.layers)),
        megabytes=found.path.stat().st_size / 1e6,
        minutes=facts["seconds"] / 60,
        acceptance=measured,
    )


def table(accepted: list[Accepted], **how: Any) -> str:
    """The measured acceptance: a row for each kind of text, and their mean."""
    rows = [
        f"| {one.text} | {one.length:.2f} | {one.rate:.0%} | {one.gain:.2f} times | {'yes' if one.same else 'no'} |"
        for one in accepted
    ]
    length, rate = fmean(one.length for one in accepted), fmean(one.rate for one in accepted)
    rows.append(f"| mean | {length:.2f} | {rate:.0%} | {fmean(one.gain for one in accepted):.2f} times | |")
    return MEASURED.format(rows="\n".join(rows), **how)


def keep(path: Path, text: str) -> None:
    """Put the page beside the draft's file."""
    path.with_suffix(".md").write_text(text, "utf-8")
