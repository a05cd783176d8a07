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


def acceptance(pair: Pair) -> Finding | None:
    """Tokens in a step against how much longer the step takes than one without guesses.

    Guessing gains exactly where the first is larger. Source: Leviathan et al. 2023, arXiv:2211.17192, section 3.
    """
    mine, plain = pair.lane, pair.over.step_ms
    if not mine.guesses or pair.over.guesses or not mine.step_ms or not plain:
        return None
    stretch, tokens = mine.step_ms / plain, mine.tokens_per_step
    word = pair.moved("tpot_ms")
    if word in ("faster", "slower") and (word == "faster") != (tokens > stretch):
        return None
    came = "which is not the guessing's doing alone" if stretch < 1 else CAME[word]
    sentence = (
        f"A step of {mine.name} wrote {figure(tokens)} tokens and took {times(stretch)} as long as one of "
        f"{pair.over.name} ({ms(mine.step_ms)} against {ms(plain)}{_drafting(mine)}), {came}{_right(mine)}."
    )
    evidence = {
        "tokens_per_step": tokens, "step_ms": mine.step_ms, "plain_step_ms": plain, "stretch": stretch,
        "draft_ms": draft_ms(mine), "acceptance_rate": mine.get("speculation.acceptance_rate"),
    }  # fmt: skip
    return Finding("acceptance", said(sentence), evidence, word, _attempts(mine, word))


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


def _attempts(side: Side, word: str) -> tuple[dict[str, Any], ...]:
    """More guesses where nearly all were right; fewer, as many as are wanted, or none where they cost."""
    kind = side.get("effective.speculation.kind")
    knobs = side.get(f"lane.opts.{kind}") or {}
    guesses, rate = knobs.get("guesses"), side.get("speculation.acceptance_rate")
    if not guesses:
        return ()
    address = f"lane.opts.{kind}"
    off: dict[str, Any] = {address: False}
    if word != "faster" and rate is not None and rate < SELDOM_RIGHT:
        return (off,)
    if word == "faster":
        more = min(MOST_GUESSES, 2 * guesses)
        return ({f"{address}.guesses": more},) if rate and rate > MOSTLY_RIGHT and more > guesses else ()
    fewer = max(1, round(side.tokens_per_step))
    shorter = [{f"{address}.guesses": fewer}] if fewer < guesses and side.tokens_per_step > 1.2 else []
    adaptive = [] if knobs.get("adaptive") or shorter else [{f"{address}.adaptive": True}]
    return (*shorter, *adaptive, off)
