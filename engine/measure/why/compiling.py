"""Rules on compiling: what it cost once, when that is paid back, and whether it went on inside the rounds."""

from engine.measure.why.evidence import Finding, Pair, figure, ms, said

SHORT_S = 1.0
"""A compile time below this is not worth a word."""


def recompiles(pair: Pair) -> Finding | None:
    """Graphs that were compiled anew inside the newest round stop it for as long as compiling takes."""
    again = pair.lane.get("effective.recompiles")
    if not again or pair.over.get("effective.recompiles"):
        return None
    sentence = (
        f"{pair.lane.name} compiled {again} more {'step' if again == 1 else 'steps'} inside its last round: "
        "shapes came up that were not compiled before."
    )
    word = "slower" if pair.moved("output_tok_per_s") == "slower" else None
    return Finding("recompiles", said(sentence), {"recompiles": again}, word, ({"lane.opts.torch_compile": False},))


def payback(pair: Pair) -> Finding | None:
    """After how many tokens the time for compiling is earned back by faster steps, and what this run wrote."""
    cost, before = (side.get("phases.compile_s") or 0.0 for side in (pair.lane, pair.over))
    mine, other = pair.lane.metric("tpot_ms"), pair.over.metric("tpot_ms")
    paid = cost - before
    if paid < SHORT_S or not mine or not other:
        return None
    rounds = pair.lane.lane["rounds"]
    wrote = sum(one.get("output_tokens") or 0 for one in rounds)
    evidence = {"compile_s": cost, "tpot_ms": mine, "over_tpot_ms": other, "output_tokens": wrote}
    if mine >= other:
        text = f"{pair.lane.name} was compiled for {ms(paid * 1000)}, and its steps do not earn that back."
        return Finding("payback", said(text), evidence, None, ({"lane.opts.torch_compile": False},))
    needed = paid * 1000 / (other - mine)
    text = f"Its {ms(paid * 1000)} of compiling are paid back after {figure(needed)} tokens"
    short = f", and all rounds together wrote {wrote:,}: so far it took longer in all" if wrote < needed else ""
    return Finding("payback", f"{text}{short}.", evidence | {"payback_tokens": needed})
