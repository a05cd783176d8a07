"""Rules on a step's profile: which kind of operator takes the time, and how many there are."""

from dataclasses import dataclass

from engine.measure.why.evidence import QUICKER, Finding, Pair, Side, mb, ms, said
from engine.measure.why.waiting import waiting

KINDS = {
    "products": ("linear", "mm", "gemv", "gemm", "bmm", "cutlass", "cublas", "nvjet", "xmma", "splitk", "dot_kernel"),
    "attention": ("attention", "flash", "fmha", "sdpa", "softmax"),
    "widening": ("_to_copy", "quant", "16_copy_kernel", "float8_copy", "bitwise", "clamp"),
    "exchange": ("all_reduce", "allreduce", "all_gather", "nccl", "c10d"),
}
"""Kinds of operators by parts of their names, those named first deciding; everything else is small operators."""
WORDS = {
    "products": "the products with the weights",
    "attention": "attention",
    "widening": "changing number formats",
    "exchange": "exchanging parts between ranks",
    "small": "the small operators around the products",
    "waiting": "waiting for the host to start kernels",
}
MOST = 0.5
"""A kind of work explains a difference from this share of it on."""
PLAUSIBLE = 3.0
"""A kind of work that changed by more than this times the difference tells of the profile's own noise."""
HEAVY = 0.15
"""From this share of a step on, changing number formats is worth a word."""
NEAR = 0.1
NOISE = 0.05
"""A single profiled step says nothing about a difference smaller than this share of it."""


@dataclass(frozen=True)
class Split:
    """A step by kinds of work: milliseconds and launches of each, by the profile of one step.

    Off CUDA the shares are those of the profiled step, applied to the measured one; on CUDA kernel times are
    the device's own, and what is left of the step is waiting.
    """

    ms: dict[str, float]
    count: dict[str, int]

    @property
    def whole(self) -> float:
        return sum(self.ms.values())


def split(side: Side) -> Split | None:
    """None where no step was profiled, or where the profiler could not see the products (autotuned kernels)."""
    found, step = side.get("effective.launches"), side.step_ms
    if not found or not step or side.guesses:
        return None
    busy = found.get("busy_ms")
    shares, count = dict.fromkeys(WORDS, 0.0), dict.fromkeys(WORDS, 0)
    for row in found["top"]:
        kind = kind_of(row["name"])
        shares[kind] += row["share"]
        count[kind] += row["count"]
    if not count["products"]:
        return None
    shares["small"] += max(0.0, 1 - sum(shares.values()))
    count["small"] += found["total"] - sum(count.values())
    spent = {kind: share * (step if busy is None else min(busy, step)) for kind, share in shares.items()}
    spent["waiting"] = 0.0 if busy is None else max(0.0, step - busy)
    return Split(spent, count)


def kind_of(name: str) -> str:
    """products, attention, widening, exchange or small. Whatever has been fused is small but for its products."""
    if name.startswith("fused "):
        return "products" if {"mm", "bmm", "addmm"} & set(name.split()) else "small"
    lower = name.lower()
    return next((kind for kind, parts in KINDS.items() if any(part in lower for part in parts)), "small")


def widening(pair: Pair) -> Finding | None:
    """Numbers in few bits must be widened or rounded for every product: what it takes against what bytes save."""
    mine, other = split(pair.lane), split(pair.over)
    word = pair.moved("tpot_ms")
    narrow = pair.lane.get("effective.quantization.kind")
    if (
        not mine
        or not other
        or not narrow
        or word == "faster"
        or _shared(pair)
        or pair.over.get("effective.quantization.kind")
    ):
        return None
    spent = mine.ms["widening"]
    if spent < HEAVY * mine.whole or spent <= other.ms["widening"]:
        return None
    products = mine.ms["products"] - other.ms["products"]
    much = f"{ms(abs(products))} {'less' if products < 0 else 'more'}"
    sentence = (
        f"In {pair.lane.name} changing number formats takes {ms(spent)} of each step of {ms(mine.whole)}, in "
        f"{mine.count['widening']:,} operators; its products with {narrow} weights take {much} than those of "
        f"{pair.over.name}."
    )
    evidence = {"widening_ms": spent, "step_ms": mine.whole, "operators": mine.count["widening"],
                "products_ms": mine.ms["products"], "over_products_ms": other.ms["products"]}  # fmt: skip
    nibbles, fused = (
        {"lane.opts.bitsandbytes": {"kind": "nf4"}, "lane.opts.torchao": False},
        {"lane.opts.torch_compile": {}},
    )
    return Finding("widening", said(sentence), evidence, word, (fused, nibbles))


def time_split(pair: Pair) -> Finding | None:
    """The kind of work in which most of the difference between two steps lies."""
    mine, other = split(pair.lane), split(pair.over)
    word = pair.moved("tpot_ms")
    if not mine or not other or word not in ("faster", "slower") or _shared(pair):
        return None
    whole = mine.whole - other.whole
    if abs(whole) < NOISE * other.whole:
        return None
    change = {kind: mine.ms[kind] - other.ms[kind] for kind in mine.ms}
    kind = max(change, key=lambda name: change[name] / whole)
    told = kind == "exchange" or (kind == "waiting" and waiting(pair))  # by the rules on ranks and on waiting
    if told or (whole > 0) != (word == "slower") or not MOST <= change[kind] / whole <= PLAUSIBLE:
        return None
    sentence = (
        f"Most of the difference is {WORDS[kind]}: by the profile of one step {ms(mine.ms[kind])} in "
        f"{pair.lane.name} against {ms(other.ms[kind])} in {pair.over.name}{_launched(kind, mine, other)}."
    )
    evidence = {"kind": kind, "ms": mine.ms[kind], "over_ms": other.ms[kind], "step_ms": mine.whole,
                "over_step_ms": other.whole, "difference_share": change[kind] / whole}  # fmt: skip
    attempts = QUICKER if kind in ("small", "waiting") else ()
    return Finding("time split", said(sentence), evidence, word, attempts if word == "slower" else ())


def _launched(kind: str, mine: Split, other: Split) -> str:
    if not mine.count[kind] or mine.count[kind] == other.count[kind]:
        return ""
    return f", in {mine.count[kind]:,} launches against {other.count[kind]:,}"


def same_work(pair: Pair) -> Finding | None:
    """Nothing changed, since nearly all of a step is products that both lanes do alike."""
    mine, other = split(pair.lane), split(pair.over)
    read, before = pair.lane.step_bytes, pair.over.step_bytes
    if pair.moved("tpot_ms") in ("faster", "slower") or _shared(pair) or not (mine and other and read and before):
        return None
    alike = [side.ms["products"] / side.whole for side in (mine, other)]
    if min(alike) < 0.7 or abs(read / before - 1) > NEAR / 2 or abs(mine.whole / other.whole - 1) > NEAR:
        return None
    total, first = sum(mine.count.values()), sum(other.count.values())
    changed = (
        f"{total:,} launches a step instead of {first:,} change" if total != first else "what else differs changes"
    )
    sentence = (
        f"{min(alike):.0%} or more of a step are products that read the same {mb(before)} in both lanes, "
        f"so {changed} little."
    )
    evidence = {"products_share": alike[0], "over_products_share": alike[1], "bytes": read, "launches": total,
                "over_launches": first}  # fmt: skip
    return Finding("same work", sentence, evidence, "same")


def _shared(pair: Pair) -> bool:
    """A step for several requests is another step than the one that was profiled for one."""
    return abs(pair.lane.in_flight / pair.over.in_flight - 1) > NEAR
