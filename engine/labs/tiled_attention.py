"""Attention whose tile of keys the user moves, against writing out the whole score matrix, and against SDPA."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from pydantic import Field

from engine.labs import (
    Axis,
    Bench,
    Lab,
    LeftOut,
    TorchBench,
    Values,
    apart,
    fits,
    has_gpu,
    ladder,
    short,
    size,
    times,
    uncompiled,
)
from engine.refusal import Refusal

KEYS_CPU, QUERIES_CPU = (16, 32, 64, 128, 256, 512, 1024, 2048), (4, 16, 64, 256)
KEYS_CUDA, QUERIES_CUDA = (16, 32, 64, 128), (16, 32, 64, 128)
TOLERANCE = {"cpu": 2e-5, "cuda": 4e-3}
"""Largest error allowed, as a share of the largest result: float32, and float16 weights on a GPU."""


class TiledAttention(Lab):
    """Compute attention tile by tile, without ever writing out the matrix of scores.

    Every token scores all tokens before it, so the score matrix grows with the square of the context. An online
    softmax keeps the highest score and the sum so far, and can therefore finish one tile of keys before it reads
    the next: a few kilobytes of scores are enough. It helps with long contexts, in memory most of all; with short
    ones the matrix is small anyway. Tiles that are too small rescale the sums too often, and few queries at once
    read the keys too often. Source: FlashAttention, arXiv:2205.14135.
    """

    title: ClassVar[str] = "Tiles of attention"
    group: ClassVar[str] = "loop tiling"
    picture: ClassVar[str] = "heat map"
    across: ClassVar[Axis] = Axis("keys", "Keys in a tile")
    along: ClassVar[Axis] = Axis("queries", "Queries at once")
    shown: ClassVar[tuple[Axis, ...]] = (Axis("ms", "Time", "ms", log=False), Axis("extra_mb", "Extra memory", "MB"))
    lower: ClassVar[bool] = True

    context: int = Field(1536, ge=32, le=16384, title="Context", description="Tokens that attend to each other.")
    heads: int = Field(9, ge=1, le=64, title="Heads", description="Heads of queries.")
    sharing: int = Field(3, ge=1, le=64, title="Heads that share keys", description="Query heads for each key head.")
    width: Literal[32, 64, 128] = Field(64, title="Head width", description="Numbers in one query or key.")
    threads: int = Field(1, ge=1, le=256, title="Threads", description="On the processor: how many share the heads.")
    repeats: int = Field(5, ge=1, le=30, title="Repeats", description="Rounds in which every point gets a turn.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", title="Device", description="Where the loops run.")

    unavailable = classmethod(uncompiled)

    def settle(self, machine: Any) -> str | None:
        if self.heads % self.sharing:
            return f"{self.heads} heads cannot share keys by {self.sharing}: choose a number that divides them."
        cuda = self.place(machine) == "cuda"
        if cuda and not has_gpu(machine):
            return "There is no NVIDIA GPU that the lab may use here: set device to cpu."
        if not cuda and not machine.compiler:
            return self.unavailable(machine) or "Without a C++ compiler only the GPU can run this: set device to cuda."
        room = machine.gpus[0].memory_bytes if cuda else machine.memory_bytes
        if 2 * self._whole() > room:
            return f"The untiled score matrix alone needs {size(self._whole())}: choose a shorter context."
        return None

    def _whole(self) -> int:
        """Bytes of the whole score matrix in float32."""
        return 4 * self.heads * self.context**2

    def grid(self, machine: Any) -> list[Values]:
        cuda = self.place(machine) == "cuda"
        keys = [count for count in (KEYS_CUDA if cuda else KEYS_CPU) if count < self.context]
        keys += [] if cuda else [self.context]
        queries = [count for count in (QUERIES_CUDA if cuda else QUERIES_CPU) if count <= self.context]
        tiles = [{"kind": "tile", "keys": k, "queries": q} for q in queries for k in keys]
        return [{"kind": "untiled"}, {"kind": "library"}, *tiles]

    def reach(self, machine: Any) -> tuple[list[int], list[int]]:
        if self.place(machine) == "cuda":
            return list(KEYS_CUDA), list(QUERIES_CUDA)
        return ladder(self.context), ladder(min(self.context, 512))

    def point(self, across: Any, along: Any, machine: Any) -> Values:
        keys, queries = int(across), int(along)
        if self.place(machine) == "cuda" and (keys not in KEYS_CUDA or queries not in QUERIES_CUDA):
            raise Refusal("On a GPU a tile has 16, 32, 64 or 128 keys and as many queries.")
        if not (1 <= keys <= self.context and 1 <= queries <= self.context):
            raise Refusal(f"There is no tile of {keys} keys and {queries} queries.", "Stay within the context.")
        return {"kind": "tile", "keys": keys, "queries": queries}

    def predict(self, point: Values, machine: Any) -> Values:
        """The working set: keys (turned) and values of a tile, the queries with their sums, four rows of scores."""
        if point["kind"] == "untiled":
            return {"bytes": self._whole()}
        if point["kind"] != "tile":
            return {}
        width = self.width
        if self.place(machine) == "cuda":
            return {"bytes": 2 * (2 * point["keys"] + point["queries"]) * width}
        return {"bytes": 4 * (2 * point["keys"] * width + 2 * point["queries"] * width + 4 * point["keys"])}

    def open(self, machine: Any) -> Bench:
        return _Bench(self, machine, self.place(machine))

    def competes(self, point: Values) -> bool:
        return point["kind"] == "tile"

    def derive(self, points: list[Values]) -> list[Values]:
        timed = [{**one, "ms": one["seconds"] * 1e3} if one.get("seconds") else one for one in points]
        return [{**one, "extra_mb": one["extra_bytes"] / 2**20} if "extra_bytes" in one else one for one in timed]

    def sentence(self, points: list[Values], facts: Values) -> str:
        best, known = self.best(points), {one["kind"]: one for one in points if one.get("seconds")}
        if not best or "untiled" not in known:
            return "Not enough was measured to compare tiles with the whole matrix."
        if unsettled := self.unsettled(points, facts):
            return unsettled
        untiled, caches = known["untiled"], facts.get("caches", {})
        parts = [self._headline(best, untiled, known.get("library"))]
        parts += filter(None, [self.tied(points)])
        if untiled.get("extra_bytes") and "extra_bytes" in best:
            kept = f"{size(best['extra_bytes'])}" if best["extra_bytes"] >= 2**20 else "less than 1 MB"
            parts.append(f"It takes {kept} of extra memory, the whole matrix {size(untiled['extra_bytes'])}.")
        if apart(best, untiled):
            room = fits(best["bytes"], caches)
            where = f"in {room}" if room != "memory" else "close"
            parts.append(
                f"Its working set of {size(best['bytes'])} stays {where}, while the matrix of scores is written to "
                f"{'memory' if fits(untiled['bytes'], caches) == 'memory' else fits(untiled['bytes'], caches)} and "
                "read back for the softmax and again for the values."
            )
        else:
            parts.append("That is no clear gain: this context is short enough for the whole matrix.")
        return " ".join([*parts, self._extremes(points, best)]).strip()

    def _headline(self, best: Values, untiled: Values, library: Values | None) -> str:
        text = (
            f"Best: {best['keys']:,} keys for {best['queries']} queries at once, {short(best['ms'])} ms, "
            f"{times(untiled['seconds'] / best['seconds'])} as fast as writing out all scores"
        )
        return text + (f" and {times(library['seconds'] / best['seconds'])} as fast as SDPA." if library else ".")

    def _extremes(self, points: list[Values], best: Values) -> str:
        """What the edges of the map show, where they are clearly slower."""
        tiles = [one for one in points if self.competes(one) and one.get("seconds")]
        few = min(tiles, key=lambda one: (one["queries"], abs(one["keys"] - best["keys"])))
        if few["queries"] < best["queries"] and apart(best, few):
            return f"With only {few['queries']} queries at once the keys are read too often ({short(few['ms'])} ms)."
        return ""


class _Bench(TorchBench):
    """Queries, keys and values of normal random numbers with a fixed seed, and the result in float64."""

    weighs: ClassVar[bool] = True

    def __init__(self, lab: TiledAttention, machine: Any, device: str):
        import torch

        self.lab, self.device, self.torch = lab, device, torch
        torch.set_num_threads(lab.threads if device == "cpu" else torch.get_num_threads())
        torch.manual_seed(0)
        self.kind = kind = torch.float32 if device == "cpu" else torch.float16
        shape = (lab.context, lab.width)
        self.q = torch.randn(lab.heads, *shape, device=device).to(kind)
        self.k, self.v = (torch.randn(lab.heads // lab.sharing, *shape, device=device).to(kind) for _ in "kv")
        self.wide = [one.repeat_interleave(lab.sharing, 0)[None] for one in (self.k, self.v)]
        self.exact = self._exact()
        self.caches = machine.caches if device == "cpu" else {}

    def _exact(self) -> Any:
        """Head by head, so that float64 needs no more memory than what is measured."""
        heads = zip(self.q, self.wide[0][0], self.wide[1][0], strict=True)
        return self.torch.stack([self._sdpa(*(one.double()[None, None] for one in head))[0, 0] for head in heads])

    def _sdpa(self, q: Any, k: Any, v: Any) -> Any:
        return self.torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    def call(self, point: Values) -> Callable[[], Any]:
        if point["kind"] == "library":
            return lambda: self._sdpa(self.q[None], *self.wide)[0]
        return self._compiled(point) if self.device == "cpu" else self._cuda(point)

    def _compiled(self, point: Values) -> Callable[[], Any]:
        from engine.kernels.tiles import attention, attention_whole

        data, threads = (self.q, self.k, self.v), self.lab.threads
        if point["kind"] == "untiled":
            return lambda: attention_whole(*data, threads)
        return lambda: attention(*data, point["queries"], point["keys"], threads)

    def _cuda(self, point: Values) -> Callable[[], Any]:
        from triton.runtime.errors import OutOfResources

        from engine.kernels.tiles_triton import attention

        if point["kind"] == "untiled":
            return self._whole

        def run() -> Any:
            try:
                return attention(self.q, self.k, self.v, point["queries"], point["keys"])
            except OutOfResources as error:
                tile = f"{point['keys']} keys and {point['queries']} queries"
                raise LeftOut(f"A tile of {tile} does not fit: {error}.") from None

        return run

    def _whole(self) -> Any:
        """On a GPU the untiled twin is torch's own operators, one after another."""
        scores = self.q @ self.wide[0][0].transpose(1, 2) * self.lab.width**-0.5
        later = self.torch.ones_like(scores[0], dtype=self.torch.bool).triu(1)
        return scores.masked_fill(later, float("-inf")).softmax(-1) @ self.wide[1][0]

    def check(self, point: Values, output: Any) -> Values:
        worst = (output.double() - self.exact).abs().max().item()
        if not worst <= TOLERANCE[self.device] * self.exact.abs().max().item():
            raise ArithmeticError(f"the attention of {point} is wrong by {worst:.3g}")
        return {"error": worst}

    def facts(self) -> Values:
        return {**super().facts(), "caches": self.caches}
