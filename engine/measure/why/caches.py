"""Rules on keys and values: what is read again, what is reused, and how small a part of a step they are."""

from typing import Any

from engine.measure.why.evidence import Finding, Pair, Side, figure, mb, ms, said

SMALL = 0.05
WINDOWS = ("kv.kind", "kv_bits", "window", "offload", "cache")
"""What a lane reports of how it kept its keys and values."""


def recomputing(pair: Pair) -> Finding | None:
    """Without kept keys and values every step reads the whole text again."""
    mine, other = pair.lane, pair.over
    word = pair.moved("tpot_ms")
    if _kind(mine) != "off" or _kind(other) in (None, "off") or word != "slower":
        return None
    prompt, output = (mine.get(f"occupancy.{name}") for name in ("prompt_tokens", "output_tokens"))
    if prompt is None or not mine.step_ms or not other.step_ms:
        return None
    whole = prompt + output / 2
    sentence = (
        f"{mine.name} keeps no keys and values: a step reads the whole text again, {figure(whole)} tokens on average "
        f"instead of 1, and takes {ms(mine.step_ms)} instead of {ms(other.step_ms)}."
    )
    evidence = {"tokens_read": whole, "step_ms": mine.step_ms, "over_step_ms": other.step_ms}
    return Finding("recomputing", said(sentence), evidence, word, ({"lane.opts.kv_cache": {"kind": "dynamic"}},))


def prefix(pair: Pair) -> Finding | None:
    """Prompt tokens that were copied from an earlier request need not be read."""
    mine, other = pair.lane, pair.over
    hits, word = mine.metric("reused_percent"), pair.moved("ttft_ms")
    first, before = mine.metric("ttft_ms"), other.metric("ttft_ms")
    if not hits or other.metric("reused_percent") or word != "faster" or not first or not before:
        return None
    sentence = (
        f"{hits:.0f} % of the prompt tokens of {mine.name} had been read for an earlier request and were copied, so "
        f"the first token came after {ms(first)} instead of {ms(before)}."
    )
    evidence = {"reused_percent": hits, "ttft_ms": first, "over_ttft_ms": before}
    return Finding("prefix", sentence, evidence, word if pair.moved("output_tok_per_s") == word else None)


def small_cache(pair: Pair) -> Finding | None:
    """How keys and values are kept cannot show where they are a small part of what a step reads."""
    mine, other = pair.lane, pair.over
    weights = mine.get("memory.weights_bytes")
    kept = [side.get("memory.kv_bytes") for side in (mine, other)]
    if not weights or None in kept or _ways(mine) == _ways(other) or pair.moved("tpot_ms") in ("faster", "slower"):
        return None
    share = max(kept) / weights
    if share > SMALL:
        return None
    sentence = (
        f"The keys and values are {mb(max(kept))} beside {mb(weights)} of weights, {share:.1%} of what a step "
        "reads, so how they are kept hardly shows."
    )
    return Finding(
        "small cache", sentence, {"kv_bytes": kept[0], "over_kv_bytes": kept[1], "weights_bytes": weights}, "same"
    )


def _kind(side: Side) -> str | None:
    return side.get("effective.kv.kind")


def _ways(side: Side) -> list[Any]:
    return [side.get(f"effective.{name}") for name in WINDOWS]
