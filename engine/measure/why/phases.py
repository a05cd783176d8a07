"""Rules on where in an answer a difference lies: before the first token, or after it."""

from engine.measure.why.evidence import Finding, Pair, ms

MOST = 0.6
"""From this share of the difference on, it is said to lie there."""


def first_token(pair: Pair) -> Finding | None:
    """Most of the time by which answers differ passes before their first tokens, while the prompt is read."""
    mine, other = pair.lane, pair.over
    word = pair.moved("output_tok_per_s")
    first, before = mine.metric("ttft_ms"), other.metric("ttft_ms")
    whole, instead = mine.metric("e2e_ms"), other.metric("e2e_ms")
    if word not in ("faster", "slower") or None in (first, before, whole, instead) or whole == instead:
        return None
    share = (first - before) / (whole - instead)
    if (whole > instead) != (word == "slower") or share < MOST or pair.moved("ttft_ms") != word:
        return None
    sentence = (
        f"{min(share, 1.0):.0%} of the difference lies before the first token, which came after {ms(first)} instead of "
        f"{ms(before)}; after it a token takes {ms(mine.metric('tpot_ms'))} against {ms(other.metric('tpot_ms'))}."
        if mine.metric("tpot_ms") and other.metric("tpot_ms")
        else f"The first token came after {ms(first)} instead of {ms(before)}."
    )
    evidence = {
        "difference_share": share,
        "ttft_ms": first,
        "over_ttft_ms": before,
        "e2e_ms": whole,
        "over_e2e_ms": instead,
    }
    return Finding("first token", sentence, evidence, word)
