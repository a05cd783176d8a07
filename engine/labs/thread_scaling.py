"""How reading memory and two sizes of matrix product scale with the number of threads."""

from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import Field

from engine.labs import Axis, Bench, Lab, LeftOut, Values, apart, times

KINDS = {"read": "reading memory", "prefill": "the product of a prompt", "decode": "the product of one token"}
UNITS = {"read": "GB/s", "prefill": "GFLOP/s", "decode": "GB/s"}
PREFILL_TOKENS = 512


class ThreadScaling(Lab):
    """Measure what a second, third and every further thread brings on this machine.

    Three kinds of work are timed with one thread and with more: reading memory from front to back, a matrix
    product of a whole prompt (prefill), and the same with a single token (decode). Arithmetic scales with the cores;
    reading stops scaling when the memory is busy, and decoding is mostly reading. More threads than cores take
    turns and help nobody. Efficiency is the gain divided by the number of threads. Source: Amdahl, AFIPS 1967;
    Williams, Waterman and Patterson, Roofline, CACM 2009.
    """

    title: ClassVar[str] = "Scaling with threads"
    group: ClassVar[str] = "parallelism"
    picture: ClassVar[str] = "curves"
    names: ClassVar[dict[str, str]] = KINDS
    across: ClassVar[Axis] = Axis("count", "Threads", log=False)
    along: ClassVar[Axis] = Axis("kind", "Work", log=False)
    shown: ClassVar[tuple[Axis, ...]] = (
        Axis("speedup", "Speed over one thread", "×", log=False),
        Axis("efficiency", "Efficiency", "%", log=False),
    )

    read_mb: int = Field(512, ge=64, le=8192, title="Memory to read, MB", description="Far more than any cache holds.")
    rows: int = Field(49152, ge=256, le=262144, title="Rows of W", description="Outputs of the decode product.")
    depth: int = Field(576, ge=64, le=16384, title="Depth", description="Numbers in a row of W.")
    repeats: int = Field(7, ge=1, le=50, title="Repeats", description="Rounds in which every point gets a turn.")

    def settle(self, machine: Any) -> str | None:
        needed = self.read_mb * 2**20 + 4 * self.rows * self.depth
        return "That is more memory than this machine has free." if needed > machine.memory_bytes / 2 else None

    def grid(self, machine: Any) -> list[Values]:
        counts = [*_counts(machine.cores), 2 * machine.cores]
        return [{"kind": kind, "count": count} for kind in KINDS for count in counts]

    def open(self, machine: Any) -> Bench:
        return _Bench(self, machine.cores)

    def best(self, points: list[Values]) -> Values | None:
        """None: three kinds of work have no winner among them."""
        return None

    def _work(self, kind: str) -> float:
        """Bytes (read, decode) or operations (prefill) of one call, in billions."""
        weights = 4 * self.rows * self.depth / 1e9
        return {"read": self.read_mb * 2**20 / 1e9, "decode": weights,
                "prefill": 2 * PREFILL_TOKENS * self._prefill_rows() * self.depth / 1e9}[kind]  # fmt: skip

    def _prefill_rows(self) -> int:
        """A layer's worth of rows: a prompt of 512 tokens need not pass through the whole vocabulary."""
        return min(self.rows, 8 * self.depth)

    def derive(self, points: list[Values]) -> list[Values]:
        alone = {one["kind"]: one["seconds"] for one in points if one["count"] == 1 and one.get("seconds")}
        return [self._scaled(one, alone.get(one["kind"])) for one in points]

    def _scaled(self, point: Values, alone: float | None) -> Values:
        if not point.get("seconds"):
            return point
        found = {"rate": self._work(point["kind"]) / point["seconds"], "unit": UNITS[point["kind"]]}
        if alone:
            gain = alone / point["seconds"]
            found |= {"speedup": gain, "efficiency": 100 * gain / point["count"]}
        return {**point, **found}

    def sentence(self, points: list[Values], facts: Values) -> str:
        lines = [
            self._line(kind, [one for one in points if one["kind"] == kind and "speedup" in one]) for kind in KINDS
        ]
        known = [line for line in lines if line]
        if not known:
            return "Nothing was measured."
        text = "; ".join(known)
        return f"{text[:1].upper()}{text[1:]}. {self._beyond(points, facts.get('cores', 1))}".strip()

    def _beyond(self, points: list[Values], cores: int) -> str:
        """What more threads than cores did."""
        full = {one["kind"]: one for one in points if one["count"] == cores and one.get("seconds")}
        pairs = [(full[one["kind"]], one) for one in points
                 if one["count"] > cores and one.get("seconds") and one["kind"] in full]  # fmt: skip
        if any(apart(right, over) for right, over in pairs):
            return "More threads than cores make it slower."
        if any(apart(over, right) for right, over in pairs):
            return "More threads than cores still gained here, so the cores were not this program's alone."
        return "More threads than cores bring nothing." if pairs else ""

    def _line(self, kind: str, points: list[Values]) -> str:
        if not points:
            return ""
        best, alone = max(points, key=lambda one: one["speedup"]), min(points, key=lambda one: one["count"])
        if not apart(best, alone):
            return f"{KINDS[kind]} gains nothing from more than one thread ({alone['rate']:.0f} {alone['unit']})"
        return (
            f"{KINDS[kind]} gains {times(best['speedup'])} with {best['count']} threads "
            f"({best['efficiency']:.0f} % efficiency, {best['rate']:.0f} {best['unit']})"
        )


def _counts(cores: int) -> list[int]:
    """Every count up to 8 cores, then about eight steps to all of them."""
    step = max(1, cores // 8)
    return sorted({1, *range(step, cores + 1, step), cores})


class _Bench(Bench):
    """The memory to read and the matrices; torch is given the threads for each call."""

    def __init__(self, lab: ThreadScaling, cores: int):
        import torch

        self.torch, self.cores = torch, cores
        torch.manual_seed(0)
        self.block = torch.ones(lab.read_mb * 2**18)
        self.w = torch.randn(lab.rows, lab.depth)
        self.layer = self.w[: lab._prefill_rows()]
        self.prompt, self.token = torch.randn(PREFILL_TOKENS, lab.depth), torch.randn(1, lab.depth)

    def call(self, point: Values) -> Callable[[], Any]:
        threads = point["count"]
        if point["kind"] == "read":
            return self._reading(threads)
        x, w = (self.token, self.w) if point["kind"] == "decode" else (self.prompt, self.layer)

        def product() -> Any:
            self.torch.set_num_threads(threads)
            return self.torch.nn.functional.linear(x, w)

        return product

    def _reading(self, threads: int) -> Callable[[], Any]:
        from engine.kernels.native import compiler
        from engine.kernels.peaks import read
        from engine.refusal import Refusal

        try:
            compiler()
        except Refusal as refusal:
            raise LeftOut(f"Reading memory was left out: {refusal.why}") from None
        return lambda: read(self.block, threads)

    def check(self, point: Values, output: Any) -> Values:
        if point["kind"] != "read":
            return {"threads_in_torch": self.torch.get_num_threads()}
        if not abs(output - self.block.numel()) <= 1e-3 * self.block.numel():
            raise ArithmeticError(f"reading {self.block.numel()} ones gave {output}")
        return {}

    def facts(self) -> Values:
        return {"device": "cpu", "cores": self.cores, "number_format": "float32"}
