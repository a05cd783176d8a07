"""Rules on requests that share the engine: who shares a step, who waits, and which places stand empty."""

from engine.measure.why.evidence import Finding, Pair, figure, ms, said, times
from engine.measure.why.work import split
from engine.registry import optimizations

MORE = 1.2
WASTE = 0.1
CONTINUOUS = {"lane.opts.batching": False, "lane.opts.continuous_batching": {}}
LONG = 2.0
"""So many times as long as most, a gap between two tokens was one in which something else was done."""
WAITED = 0.3
"""From this share of TTFT on, waiting is what TTFT is made of."""


def sharing(pair: Pair) -> Finding | None:
    """More requests in a step against how much longer it takes: the product is the throughput."""
    mine, other = pair.lane, pair.over
    more, word = mine.in_flight / other.in_flight, pair.moved("output_tok_per_s")
    if more < MORE or word is None or not mine.step_ms or not other.step_ms:
        return None
    longer = mine.step_ms / other.step_ms
    if word != "same" and (more > longer) != (word == "faster"):
        return None
    sentence = (
        f"On average {figure(mine.in_flight)} requests shared a step of {mine.name} and {figure(other.in_flight)} one "
        f"of {other.name}, and the step took {times(longer)} as long: the weights are read once for all of them."
    )
    if word == "slower":
        sentence = sentence.replace(": the weights are read once for all of them", ", which is more than it gave")
    evidence = {"in_flight": mine.in_flight, "over_in_flight": other.in_flight, "step_ms": mine.step_ms,
                "over_step_ms": other.step_ms}  # fmt: skip
    return Finding("sharing", sentence, evidence, word)


def alone(pair: Pair) -> Finding | None:
    """Batching in which nobody shared a step has nothing to gain from."""
    mine, word = pair.lane, pair.moved("output_tok_per_s")
    on = [name for name in mine.get("lane.opts") or {} if optimizations()[name].shares]
    there = set(pair.over.get("lane.opts") or {})
    if not on or word == "faster" or mine.in_flight >= MORE or set(on) <= there or not mine.get("occupancy.requests"):
        return None
    title = optimizations()[on[0]].title.lower()
    sentence = (
        f"{mine.in_flight:.1f} requests shared a step of {mine.name} on average, so {title} had nobody to bring "
        f"together{_dearer(pair)}."
    )
    evidence = {"in_flight": mine.in_flight, "requests": mine.get("occupancy.requests"), "step_ms": mine.step_ms}
    return Finding("alone", sentence, evidence, word or "same", ({f"lane.opts.{on[0]}": False},))


def _dearer(pair: Pair) -> str:
    """What packing a step costs where it brings nobody together."""
    mine, other = pair.lane.step_ms, pair.over.step_ms
    return f", and its steps took {times(mine / other)} as long" if mine and other and mine > 1.02 * other else ""


def empty_places(pair: Pair) -> Finding | None:
    """A static batch computes for prompts that are shorter than its longest, and for answers that are done."""
    mine = pair.lane
    idle, padding = mine.get("occupancy.idle") or 0.0, mine.get("occupancy.padding") or 0.0
    if mine.get("effective.continuous") or max(idle, padding) < WASTE:
        return None
    parts = [f"{idle:.0%} of the places in its steps belonged to answers that were done"] if idle >= WASTE else []
    parts += [f"{padding:.0%} of what it read of prompts was padding"] if padding >= WASTE else []
    word = pair.moved("output_tok_per_s")
    evidence = {"idle": idle, "padding": padding}
    text = said(f"{mine.name} computed for nobody: {', and '.join(parts)}.")
    return Finding("empty places", text, evidence, "slower" if word == "slower" else None, (CONTINUOUS,))


def held_up(pair: Pair) -> Finding | None:
    """Prompts that are read between everybody's tokens: a few gaps become long, and all places wait for them."""
    mine, other = ([side.metric(f"itl_{name}_ms") for name in ("p50", "p90")] for side in (pair.lane, pair.over))
    if not pair.lane.get("effective.continuous") or None in (*mine, *other):
        return None
    if pair.moved("output_tok_per_s") != "slower" or mine[1] < LONG * mine[0] or other[1] > LONG * other[0]:
        return None
    sentence = (
        f"Half of the gaps between tokens in {pair.lane.name} are below {ms(mine[0])}, but one in ten is above "
        f"{ms(mine[1])}: while a new prompt is read, everybody waits. In {pair.over.name} that is {ms(other[0])} and "
        f"{ms(other[1])}."
    )
    evidence = {"itl_p50_ms": mine[0], "itl_p90_ms": mine[1], "over_itl_p50_ms": other[0], "over_itl_p90_ms": other[1]}
    return Finding("held up", sentence, evidence, "slower")


def queueing(pair: Pair) -> Finding | None:
    """TTFT that is mostly waiting for a place."""
    waits, firsts = ([side.metric(name) for side in (pair.lane, pair.over)] for name in ("queue_ms", "ttft_ms"))
    word = pair.moved("ttft_ms")
    if None in (*waits, *firsts) or word not in ("faster", "slower"):
        return None
    gained = (waits[1] - waits[0]) / (firsts[1] - firsts[0]) if firsts[1] != firsts[0] else 0.0
    if gained < WAITED or max(waits[0] / firsts[0], waits[1] / firsts[1]) < WAITED:
        return None
    sentence = (
        f"Requests waited {ms(waits[0])} for a place in {pair.lane.name} and {ms(waits[1])} in {pair.over.name}: "
        f"that is {min(gained, 1.0):.0%} of the difference in the time to first token."
    )
    evidence = {"queue_ms": waits[0], "over_queue_ms": waits[1], "ttft_ms": firsts[0], "over_ttft_ms": firsts[1]}
    explains = word if pair.moved("output_tok_per_s") == word else None
    more = ({"lane.opts.continuous_batching": {}}, CONTINUOUS, {"lane.opts.replicas": {"count": 2}})
    return Finding("queueing", sentence, evidence, explains, more if word == "slower" else ())


def replicas(pair: Pair) -> Finding | None:
    """Several workers side by side: as many steps at once, each somewhat longer."""
    mine, other = pair.lane, pair.over
    count, before = mine.workers, other.workers
    word = pair.moved("output_tok_per_s")
    if count <= before or word is None or not mine.step_ms or not other.step_ms:
        return None
    longer = mine.step_ms / other.step_ms
    if word == "faster" and longer > count / before:
        return None
    sentence = (
        f"{count} workers wrote side by side where {other.name} had {before}, and a step took {times(longer)} as long"
        f"{'' if word == 'faster' else ': they draw on the same memory'}."
    )
    evidence = {"workers": count, "over_workers": before, "step_ms": mine.step_ms, "over_step_ms": other.step_ms}
    return Finding("replicas", sentence, evidence, word)


def ranks(pair: Pair) -> Finding | None:
    """The layers split among processes: each reads less, and all exchange their parts twice in every layer."""
    mine, other = pair.lane, pair.over
    word = pair.moved("tpot_ms")
    if mine.ranks <= other.ranks or word not in ("faster", "slower") or not mine.step_ms or not other.step_ms:
        return None
    parts = split(mine)
    exchange = parts.ms["exchange"] if parts else None
    took = f"a step takes {ms(mine.step_ms)} against {ms(other.step_ms)}"
    told = f", {ms(exchange)} of it for exchanging parts between the ranks in every layer" if exchange else ""
    sentence = f"In {mine.name} {mine.ranks} ranks read a part of the weights each, and {took}{told}."
    evidence = {"ranks": mine.ranks, "over_ranks": other.ranks, "step_ms": mine.step_ms, "over_step_ms": other.step_ms}
    if exchange:
        evidence |= {"exchange_ms": exchange}
    whole = {"lane.opts.tensor_parallel": False}
    return Finding("ranks", sentence, evidence, word, (whole,) if word == "slower" else ())
