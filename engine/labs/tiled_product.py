"""A matrix product whose tile the user moves, against the untiled loop and the vendor's library."""

from collections.abc import Callable
from math import log
from typing import Any, ClassVar, Literal

from pydantic import Field

from engine.labs import (
    NOTABLE,
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
    middle,
    short,
    size,
    times,
    uncompiled,
)
from engine.refusal import Refusal

ROWS_CPU, TOKENS_CPU = (4, 16, 64, 256, 1024, 4096, 8192, 16384), (1, 2, 4, 8)
ROWS_CUDA, TOKENS_CUDA = (16, 32, 64, 128, 256), (16, 32, 64, 128)
FLOAT_BYTES = {"cpu": 4, "cuda": 2}
TOLERANCE = 1e-5
"""Largest error allowed, as a share of the largest sum that the numbers could make."""


class TiledProduct(Lab):
    """Cut a matrix product into tiles, so that weights are used again while they are still in a cache.

    A prompt's tokens all pass over the same weight matrix. Token by token, each pass reads the whole matrix
    from memory. Tile by tile, all tokens meet a few rows before the next ones are read, and several tokens can
    share a weight in a register. The arithmetic stays the same. It helps when the matrix is larger than the
    cache and many tokens wait; for one token nothing is used twice. Tiles that are too small cost bookkeeping.
    Source: Lam, Rothberg and Wolf, ASPLOS 1991.
    """

    title: ClassVar[str] = "Tiles of a matrix product"
    group: ClassVar[str] = "loop tiling"
    picture: ClassVar[str] = "heat map"
    across: ClassVar[Axis] = Axis("rows", "Rows of W in a tile")
    along: ClassVar[Axis] = Axis("tokens", "Tokens at once")
    shown: ClassVar[tuple[Axis, ...]] = (Axis("gflops", "Speed", "GFLOP/s", log=False),)

    rows: int = Field(49152, ge=16, le=262144, title="Rows of W", description="Outputs of the product.")
    depth: int = Field(576, ge=16, le=16384, title="Depth", description="Numbers in a row of W: inputs.")
    tokens: int = Field(64, ge=1, le=1024, title="Tokens", description="Rows of X, which all meet the same W.")
    threads: int = Field(1, ge=1, le=256, title="Threads", description="On the processor: how many share the rows.")
    repeats: int = Field(5, ge=1, le=30, title="Repeats", description="Rounds in which every point gets a turn.")
    step: Literal[32, 64, 128] = Field(
        64,
        title="GPU: depth of a tile",
        description="On a GPU: numbers of each row that a program reads at a time.",
        json_schema_extra={"gpu": True},
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", title="Device", description="Where the loops run.")

    unavailable = classmethod(uncompiled)

    def settle(self, machine: Any) -> str | None:
        if self.place(machine) == "cuda":
            return None if has_gpu(machine) else "There is no NVIDIA GPU that the lab may use here: set device to cpu."
        if not machine.compiler:
            return self.unavailable(machine) or "Without a C++ compiler only the GPU can run this: set device to cuda."
        needed = 12 * self.rows * self.depth + 12 * self.rows * self.tokens
        if needed > machine.memory_bytes / 2:
            return f"These matrices need {size(needed)} of memory: choose fewer rows or less depth."
        return None

    def grid(self, machine: Any) -> list[Values]:
        cuda = self.place(machine) == "cuda"
        rows = [count for count in (ROWS_CUDA if cuda else ROWS_CPU) if count < self.rows]
        blocks = [count for count in (TOKENS_CUDA if cuda else TOKENS_CPU) if cuda or count <= self.tokens]
        whole = [] if cuda else [self.rows]
        tiles = [{"kind": "tile", "rows": r, "tokens": t} for t in blocks for r in rows + whole]
        untiled = {"kind": "untiled"} if cuda else {"kind": "untiled", "rows": self.rows, "tokens": 1}
        return [untiled, {"kind": "library"}, *(tile for tile in tiles if tile | {"kind": "untiled"} != untiled)]

    def reach(self, machine: Any) -> tuple[list[int], list[int]]:
        if self.place(machine) == "cuda":
            return list(ROWS_CUDA), list(TOKENS_CUDA)
        return ladder(self.rows), list(TOKENS_CPU)

    def point(self, across: Any, along: Any, machine: Any) -> Values:
        rows, tokens = int(across), int(along)
        cuda = self.place(machine) == "cuda"
        if cuda and (rows & (rows - 1) or rows < 16 or rows > 256):
            raise Refusal(f"On a GPU a tile has 16, 32, 64, 128 or 256 rows, not {rows}.")
        if not 1 <= rows <= self.rows or tokens not in (TOKENS_CUDA if cuda else TOKENS_CPU):
            raise Refusal(f"There is no tile of {rows} rows and {tokens} tokens.", f"Stay within {self.rows} rows.")
        return {"kind": "tile", "rows": rows, "tokens": tokens}

    def predict(self, point: Values, machine: Any) -> Values:
        """The working set: a tile of W with the tokens that pass over it at once (on a GPU: one step of both)."""
        if "rows" not in point:
            return {}
        device = self.place(machine)
        depth = min(self.step, self.depth) if device == "cuda" else self.depth
        return {"bytes": (point["rows"] + point["tokens"]) * depth * FLOAT_BYTES[device]}

    def open(self, machine: Any) -> Bench:
        return _Bench(self, machine, self.place(machine))

    def competes(self, point: Values) -> bool:
        return point["kind"] == "tile"

    def derive(self, points: list[Values]) -> list[Values]:
        work = 2 * self.rows * self.depth * self.tokens / 1e9
        return [{**one, "gflops": work / one["seconds"]} if one.get("seconds") else one for one in points]

    def sentence(self, points: list[Values], facts: Values) -> str:
        best, known = self.best(points), {one["kind"]: one for one in points if one.get("seconds")}
        if not best or "untiled" not in known:
            return "Not enough was measured to compare tiles with the untiled loop."
        if unsettled := self.unsettled(points, facts):
            return unsettled
        untiled = known["untiled"]
        said = [self._headline(best, untiled, known.get("library")), self.tied(points)]
        said += [self._cache(points, best, facts.get("caches", {}))] if apart(best, untiled) else [
            f"All {size(self.rows * self.depth * 4)} of W stay in the cache here, so a tile brings nothing."
            if fits(self.rows * self.depth * 4, facts.get("caches", {})) != "memory"
            else "No tile is clearly faster than that: memory is not what this product waits for."
        ]  # fmt: skip
        return " ".join(filter(None, [*said, self._register(points, best)]))

    def _headline(self, best: Values, untiled: Values, library: Values | None) -> str:
        tile = f"{best['rows']:,} rows and {best['tokens']} token{'s' * (best['tokens'] > 1)} at once"
        ratio = untiled["seconds"] / best["seconds"]
        text = f"Best: {tile}, {short(best['gflops'])} GFLOP/s, {times(ratio)} the untiled loop"
        if library:
            text += f" and {best['gflops'] / library['gflops']:.0%} of the vendor's library"
        return f"{text}."

    def _cache(self, points: list[Values], best: Values, caches: dict[str, int]) -> str:
        """The cache whose border divides the tiles, at the best number of tokens, into quick and slow ones."""
        column = [one for one in points if one.get("seconds") and one.get("tokens") == best["tokens"]]
        found = []
        for name, room in caches.items():
            inside = [one["seconds"] for one in column if one["bytes"] <= room]
            outside = [one["seconds"] for one in column if one["bytes"] > room]
            if inside and outside and middle(outside) > NOTABLE * middle(inside):
                found.append((_unlike(inside) + _unlike(outside), name, room, inside, outside))
        if not found:
            return "The size of the tile matters little here beside the tokens that share a weight."
        _, name, room, inside, outside = min(found)
        return self._border(column, name, room, fits(room + 1, caches), middle(outside), min(inside))

    def _border(self, column: list[Values], name: str, room: int, below: str, slow: float, quick: float) -> str:
        kept = [one for one in column if one["bytes"] <= room and one["seconds"] ** 2 < slow * quick]
        largest = max(kept, key=lambda one: one["rows"])  # of those that are nearer to the best than to the rest
        ratio = slow / middle(one["seconds"] for one in kept)
        return (
            f"Tiles of up to {largest['rows']:,} rows keep their {size(largest['bytes'])} in the {size(room)} of "
            f"{name} while all tokens pass; where they do not fit, each group of tokens reads them from {below} "
            f"again, which takes {times(ratio)} as long."
        )

    def _register(self, points: list[Values], best: Values) -> str:
        alone = [one for one in points if one.get("seconds") and one.get("rows") == best["rows"]]
        alone = [one for one in alone if one["tokens"] == min(other["tokens"] for other in alone)]
        if best["tokens"] == 1 or not alone or not apart(best, alone[0]):
            return ""
        return (
            f"With {best['tokens']} tokens at once each weight that is loaded is used {best['tokens']} times: "
            f"{times(alone[0]['seconds'] / best['seconds'])} against {alone[0]['tokens']}."
        )


def _unlike(seconds: list[float]) -> float:
    """How far times lie from each other: the sum of squares of their logarithms about the mean."""
    logs = [log(one) for one in seconds]
    return sum((one - sum(logs) / len(logs)) ** 2 for one in logs)


class _Bench(TorchBench):
    """X and W of normal random numbers with a fixed seed, and the product in float64 to compare with."""

    def __init__(self, lab: TiledProduct, machine: Any, device: str):
        import torch

        self.lab, self.device, self.torch = lab, device, torch
        torch.set_num_threads(lab.threads if device == "cpu" else torch.get_num_threads())
        torch.manual_seed(0)
        self.kind = kind = torch.float32 if device == "cpu" else torch.float16
        self.x = torch.randn(lab.tokens, lab.depth, device=device).to(kind)
        self.w = torch.randn(lab.rows, lab.depth, device=device).to(kind)
        self.exact = self.x.double() @ self.w.double().T
        self.out = torch.empty(lab.tokens, lab.rows) if device == "cpu" else None
        self.caches = machine.caches if device == "cpu" else _shared(torch)

    def call(self, point: Values) -> Callable[[], Any]:
        if point["kind"] == "library":
            return lambda: self.torch.nn.functional.linear(self.x, self.w)
        return self._compiled(point) if self.device == "cpu" else self._triton(point)

    def _compiled(self, point: Values) -> Callable[[], Any]:
        from engine.kernels.tiles import product

        threads = self.lab.threads
        return lambda: product(self.x, self.w, point["rows"], point["tokens"], threads, self.out)

    def _triton(self, point: Values) -> Callable[[], Any]:
        from triton.runtime.errors import OutOfResources

        from engine.kernels.tiles_triton import product, product_untiled

        if point["kind"] == "untiled":
            return lambda: product_untiled(self.x, self.w)

        def run() -> Any:
            try:
                return product(self.x, self.w, point["tokens"], point["rows"], self.lab.step)
            except OutOfResources as error:
                tile = f"{point['rows']} rows and {point['tokens']} tokens"
                raise LeftOut(f"A tile of {tile} does not fit: {error}.") from None

        return run

    def check(self, point: Values, output: Any) -> Values:
        worst = (output.double() - self.exact).abs().max().item()
        # float16 sums of the vendor's library are rounded to 11 bits at the end
        loose = 2**-10 if output.dtype != self.torch.float32 else TOLERANCE
        if not worst <= loose * self.exact.abs().max().item():
            raise ArithmeticError(f"the product of {point} is wrong by {worst:.3g}")
        return {"error": worst}

    def facts(self) -> Values:
        return {**super().facts(), "caches": self.caches}


def _shared(torch: Any) -> dict[str, int]:
    """What a program's tile may fit in on this GPU."""
    facts = torch.cuda.get_device_properties(0)
    rooms = {
        "shared memory": getattr(facts, "shared_memory_per_block_optin", 0),
        "L2": getattr(facts, "L2_cache_size", 0),
    }
    return {name: room for name, room in rooms.items() if room}
