"""Rules on the memory's traffic: the bytes that a step reads, and how near it comes to what the machine allows."""

from typing import Any

from engine.measure.why.evidence import QUICKER, Finding, Pair, Side, figure, mb, ms, percent, said, times
from engine.measure.why.work import split

FEWER = 0.9
NEARER = 1.3
"""So many times another lane's share of the memory's speed are a cause beside the bytes."""
LOW, MOSTLY = 0.5, 0.6
"""Below this share of its ceiling a step is limited by something else than the memory."""


def bytes_read(pair: Pair) -> Finding | None:
    """Fewer bytes a step where memory is the limit: the step gets shorter, though seldom by as much."""
    mine, other = pair.lane, pair.over
    read, before, word = mine.step_bytes, other.step_bytes, pair.moved("tpot_ms")
    if not read or not before or word not in ("faster", "slower") or mine.guesses or other.guesses:
        return None
    less, quicker = read / before, mine.step_ms / other.step_ms
    if FEWER < less < 1 / FEWER or (less < 1) != (word == "faster") or _bound(mine if less > 1 else other):
        return None
    sentence = (
        f"A step of {mine.name} reads {mb(read)} instead of {mb(before)}, {times(less)} the bytes, and takes "
        f"{times(quicker)} the time{_shares(mine, other)}."
    )
    evidence = {"bytes": read, "over_bytes": before, "step_ms": mine.step_ms, "over_step_ms": other.step_ms,
                "share": _share(mine), "over_share": _share(other)}  # fmt: skip
    return Finding("bytes read", said(sentence), evidence, word, _smaller(mine) if word == "slower" else ())


def bytes_wasted(pair: Pair) -> Finding | None:
    """Fewer bytes, and no faster for it: the step comes less near to what the memory allows."""
    mine, other = pair.lane, pair.over
    read, before, word = mine.step_bytes, other.step_bytes, pair.moved("tpot_ms")
    share, first = _share(mine), _share(other)
    if not read or not before or not share or not first or word == "faster":
        return None
    if read / before > FEWER or share > first * FEWER:
        return None
    sentence = (
        f"{mine.name} reads {mb(read)} a step instead of {mb(before)}, but reaches only {percent(share)} of what the "
        f"memory allows, where {other.name} reaches {percent(first)}: reading is no longer what takes the time."
    )
    evidence = {"bytes": read, "over_bytes": before, "share": share, "over_share": first}
    return Finding("bytes wasted", said(sentence), evidence, word or "same", QUICKER)


def threads(pair: Pair) -> Finding | None:
    """What different numbers of threads draw from the memory while they write, in bytes a second.

    Of one process each: what ranks or replicas draw together is not told by the threads of one of them.
    """
    mine, other = pair.lane, pair.over
    if any(side.workers > 1 or side.ranks > 1 for side in (mine, other)):
        return None
    count, before = mine.get("effective.threads"), other.get("effective.threads")
    read, same = mine.step_bytes, other.step_bytes
    if not count or not before or count == before or not read or not same or abs(read / same - 1) > 0.05:
        return None
    if mine.step_ms is None or other.step_ms is None or count < before or mine.guesses or other.guesses:
        return None
    rate, first = (size / step / 1e6 for size, step in ((read, mine.step_ms), (same, other.step_ms)))
    word = pair.moved("tpot_ms")
    came = {"faster": "more threads draw more", "slower": "more threads are in each other's way"}.get(
        word, "more threads add nothing while one token at a time is written"
    )
    sentence = (
        f"{count} threads read the weights at {figure(rate)} GB/s, "
        f"{before} at {figure(first)} GB/s ({other.name}): {came}."
    )
    evidence = {"threads": count, "over_threads": before, "gb_per_s": rate, "over_gb_per_s": first}
    return Finding("threads", sentence, evidence, word or "same")


def limit(side: Side) -> Finding | None:
    """What holds a lane back by itself: the memory, arithmetic, the library's products, or what stands around them."""
    share, bound, read = _share(side), side.get("ceiling.decode.bound"), side.step_bytes
    if share is None or not bound or not read or side.step_ms is None:
        return None
    what, attempts = _held(side, share, bound)
    sentence = (
        f"A step of {side.name} reads {mb(read)} in {ms(side.step_ms)}, {percent(share)} of the speed that this "
        f"machine allows: {what}."
    )
    return Finding("limit", sentence, {"share": share, "bytes": read, "step_ms": side.step_ms}, None, attempts)


def _held(side: Side, share: float, bound: str) -> tuple[str, tuple[dict[str, Any], ...]]:
    """Why a step is no faster, in words, and what to try."""
    if share >= LOW and bound != "overhead":
        known = {
            "compute": ("arithmetic is its limit", ()),
            "memory": ("reading the weights is its limit", _smaller(side)),
        }
        return known.get(bound, ("nothing of it stands out", ()))
    parts, unit, total = split(side), side.get("effective.launches.unit"), side.get("effective.launches.total")
    if parts and bound != "overhead" and parts.ms["products"] > MOSTLY * parts.whole:
        took = f"{parts.ms['products'] / parts.whole:.0%} of the time are the library's products"
        return f"{took}, which do not read as fast as the memory could", (*QUICKER, *_smaller(side))
    if (total or 0) <= 1:  # one compiled call, which the profiler does not look into
        return "its own loop takes it", QUICKER
    if side.get("effective.launches.calls") < total / 2:
        return f"{total:,} {unit} take it one after another, most of them too small to fill the machine", ()
    return f"starting {total:,} {unit}, and small ones among them, take the time", QUICKER


def _share(side: Side) -> float | None:
    return side.get("ceiling.decode.share")


def _bound(side: Side) -> bool:
    """Whether the figures say that something else than the memory limits this lane."""
    return side.get("ceiling.decode.bound") == "overhead"


def _shares(mine: Side, other: Side) -> str:
    shares = [_share(side) for side in (mine, other)]
    if None in shares:
        return ""
    return (
        f" ({percent(shares[0])} of what the memory allows, against {percent(shares[1])}{_meant(mine, other, shares)})"
    )


def _meant(mine: Side, other: Side, shares: list[float]) -> str:
    """What the two shares mean for a step that reads fewer bytes."""
    if not all(shares) or mine.step_bytes >= other.step_bytes:
        return ""
    less, nearer = mine.step_bytes / other.step_bytes, shares[0] / shares[1]
    if 1 <= nearer < NEARER:
        return ""
    if nearer < 1:
        return ": a byte takes longer than there, but there are fewer of them"
    much = "gains more than the bytes do" if nearer > 1 / less else "gains as well"
    count, before = (side.get("effective.launches.total") or 0 for side in (mine, other))
    fewer = f", with {count:,} launch{'es' * (count > 1)} a step, not {before:,}" if 0 < count < before else ""
    return f": coming nearer to this limit {much}{fewer}"


def _smaller(side: Side) -> tuple[dict[str, Any], ...]:
    """What reads fewer bytes for each token."""
    if not side.get("effective.native"):
        return {"lane.opts.precision": {"dtype": "bfloat16"}}, {"lane.opts.bitsandbytes": {"kind": "nf4"}}
    kind = {None: "int8", "int8": "int4"}.get(side.get("effective.quantization.kind"))
    return ({"lane.opts.packed_weights": {"kind": kind}},) if kind else ()
