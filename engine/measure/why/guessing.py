"""Rules on guessed tokens: what a step with guesses gave, and what it cost."""

from typing import Any

from engine.measure.why.evidence import Finding, Pair, Side, figure, ms, said, times

MOST_GUESSES = 16
MOSTLY_RIGHT, SELDOM_RIGHT = 0.8, 0.1
CAME = {
    "faster": "so the guessing paid",
    "slower": "so the guessing cost more than it gave",
    "same": "so the guessing gave as much as it cost",
    None: "so what the guessing gave and what it cost are too near to tell apart",
}
ALIKE = {"faster": "so all of the gain is in the shorter step", "slower": "so all of the loss is in the longer step"}
"""Where both lanes guess, and their guesses carry equally far."""


def acceptance(pair: Pair) -> Finding | None:
    """Tokens in a step against how much longer the step takes than the other lane's.

    Guessing gains exactly where the first is larger. Source: Leviathan et al. 2023, arXiv:2211.17192, section 3.
    """
    mine, other = pair.lane, pair.over
    if not mine.guesses or not mine.step_ms or not other.step_ms or mine.tokens_per_step < other.tokens_per_step:
        return None
    stretch, more = mine.step_ms / other.step_ms, mine.tokens_per_step / other.tokens_per_step
    word = pair.moved("tpot_ms")
    if word in ("faster", "slower") and (word == "faster") != (more > stretch):
        return None
    alike = other.guesses and figure(mine.tokens_per_step) == figure(other.tokens_per_step)
    if alike and word not in ALIKE:
        return None
    shorter = word == "faster" and stretch < 1
    came = ALIKE[word] if alike else "so it gained by the shorter step as well" if shorter else CAME[word]
    took = f"took {times(stretch)} as long as one of {other.name} ({ms(mine.step_ms)} against {ms(other.step_ms)}"
    sentence = f"{_wrote(mine, other, alike)} {took}{_drafting(mine)}), {came}{_right(mine)}."
    evidence = {
        "tokens_per_step": mine.tokens_per_step, "over_tokens_per_step": other.tokens_per_step,
        "step_ms": mine.step_ms, "over_step_ms": other.step_ms,
        "draft_ms": draft_ms(mine), "acceptance_rate": mine.get("speculation.acceptance_rate"),
    }  # fmt: skip
    return Finding("acceptance", said(sentence), evidence, word, () if alike else _attempts(mine, word))


def _wrote(mine: Side, other: Side, alike: bool) -> str:
    """What the steps wrote, up to the verb of what one of them took; equal lengths are no difference."""
    length = figure(mine.tokens_per_step)
    if alike:
        return f"Guesses carried equally far, {length} tokens in a step, and a step of {mine.name}"
    instead = f" instead of {figure(other.tokens_per_step)}" if other.guesses else ""
    return f"A step of {mine.name} wrote {length} tokens{instead} and"


def draft_ms(side: Side) -> float | None:
    """Milliseconds that the draft took in a step in which it was asked."""
    spent, asked = side.get("effective.speculation.draft_s"), side.get("effective.speculation.asked")
    return spent * 1000 / asked if spent is not None and asked else None


def _drafting(side: Side) -> str:
    spent = draft_ms(side)
    return f", {ms(spent)} of it for guessing" if spent and spent > 0.05 * side.step_ms else ""


def _right(side: Side) -> str:
    rate = side.get("speculation.acceptance_rate")
    return "" if rate is None else f": {rate:.0%} of the guesses were right"


def _attempts(side: Side, word: str | None) -> tuple[dict[str, Any], ...]:
    """More guesses where nearly all were right; fewer, as many as are wanted, or none where they cost."""
    kind = side.get("effective.speculation.kind")
    knobs, address = side.get(f"lane.opts.{kind}") or {}, f"lane.opts.{kind}"
    guesses, rate = knobs.get("guesses"), side.get("speculation.acceptance_rate") or 0.0
    if not guesses:
        return ()
    if word == "faster":
        more = min(MOST_GUESSES, 2 * guesses)
        return ({f"{address}.guesses": more},) if rate > MOSTLY_RIGHT else ()
    fewer = max(1, round(side.tokens_per_step))
    shorter = ({f"{address}.guesses": fewer},) if rate >= SELDOM_RIGHT and fewer < guesses else ()
    return (*shorter, {address: False})
