"""What each attention kernel costs in time and memory as the context grows."""

import warnings
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import psutil
from pydantic import Field

from engine.labs import Axis, Bench, Lab, LeftOut, TorchBench, Values, apart, has_gpu, size, times

KERNELS = {
    "eager": "eager",
    "math": "SDPA math",
    "efficient": "SDPA memory-efficient",
    "flash": "SDPA flash",
    "flex": "FlexAttention",
}
SHORTEST = 128
TOLERANCE = {"cpu": 2e-5, "cuda": 4e-3}


class AttentionContext(Lab):
    """Compare attention kernels from a short context to a long one.

    Eager attention and SDPA's math kernel write out the matrix of scores: twice the context is four times the
    time and the memory. The flash and memory-efficient kernels work through tiles, so their extra memory hardly grows;
    FlexAttention compiles such a kernel for a mask of your own. For a short context all are alike, and then the
    simplest will do. Compiling FlexAttention costs seconds once for each length. Source: FlashAttention,
    arXiv:2205.14135; FlexAttention, arXiv:2412.05496.
    """

    title: ClassVar[str] = "Attention as the context grows"
    group: ClassVar[str] = "attention"
    picture: ClassVar[str] = "curves"
    across: ClassVar[Axis] = Axis("context", "Context", "tokens")
    along: ClassVar[Axis] = Axis("kernel", "Kernel", log=False)
    shown: ClassVar[tuple[Axis, ...]] = (Axis("ms", "Time", "ms"), Axis("extra_mb", "Peak extra memory", "MB"))
    names: ClassVar[dict[str, str]] = KERNELS
    lower: ClassVar[bool] = True

    longest: Literal[512, 1024, 2048, 4096, 8192, 16384, 32768] = Field(
        2048, title="Longest context", description="Contexts double from 128 tokens to this."
    )
    heads: int = Field(9, ge=1, le=64, title="Heads", description="Heads, each with keys and values of its own.")
    width: Literal[32, 64, 128] = Field(64, title="Head width", description="Numbers in one query or key.")
    flex: bool = Field(False, title="FlexAttention", description="Compiles for some seconds at each length.")
    threads: int = Field(1, ge=1, le=256, title="Threads", description="On the processor: threads of an operator.")
    repeats: int = Field(5, ge=1, le=30, title="Repeats", description="Rounds in which every point gets a turn.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", title="Device", description="Where attention runs.")

    def settle(self, machine: Any) -> str | None:
        cuda = self.place(machine) == "cuda"
        if cuda and not has_gpu(machine):
            return "There is no NVIDIA GPU that the lab may use here: set device to cpu."
        if self.flex and machine.zero_gpu:
            return "FlexAttention has to be compiled, which this Space does not allow: switch it off."
        if self.flex and not cuda and not machine.compiler:
            return "FlexAttention needs a C++ compiler on the processor: install g++, or switch it off."
        return None

    def grid(self, machine: Any) -> list[Values]:
        contexts = [SHORTEST << power for power in range(16) if SHORTEST << power <= self.longest]
        kernels = [name for name in KERNELS if name != "flex" or self.flex]
        return [{"kernel": name, "context": count} for count in contexts for name in kernels]

    def predict(self, point: Values, machine: Any) -> Values:
        """Bytes of the score matrix, for kernels that write it out."""
        matrix = 4 * self.heads * point["context"] ** 2
        return {"bytes": matrix} if point["kernel"] in ("eager", "math") else {}

    def open(self, machine: Any) -> Bench:
        return _Bench(self, self.place(machine))

    def derive(self, points: list[Values]) -> list[Values]:
        timed = [{**one, "ms": one["seconds"] * 1e3} if one.get("seconds") else one for one in points]
        return [{**one, "extra_mb": one["extra_bytes"] / 2**20} if "extra_bytes" in one else one for one in timed]

    def best(self, points: list[Values]) -> Values | None:
        """The quickest at the longest context that more than one kernel has reached."""
        return min(_longest(points), key=lambda one: one["seconds"], default=None)

    def sentence(self, points: list[Values], facts: Values) -> str:
        last, best = _longest(points), self.best(points)
        if not best or len(last) < 2:
            return "Not enough was measured to compare kernels."
        slow = max(last, key=lambda one: one["seconds"])
        parts = [
            f"At {best['context']:,} tokens {KERNELS[best['kernel']]} is quickest with {best['ms']:.1f} ms, "
            f"{times(slow['seconds'] / best['seconds'])} as fast as {KERNELS[slow['kernel']]}."
        ]
        if matrix := next((one for one in last if one["kernel"] == "eager" and "extra_bytes" in one), None):
            parts.append(self._memory(matrix, best))
        return " ".join([*parts, self._start(points)]).strip()

    def _memory(self, eager: Values, best: Values) -> str:
        text = f"Eager attention takes {size(eager['extra_bytes'])} on top, {KERNELS[best['kernel']]} "
        return (
            f"{text}{size(best['extra_bytes'])}." if best.get("extra_bytes", 0) >= 2**20 else f"{text}next to nothing."
        )

    def _start(self, points: list[Values]) -> str:
        """From which context on flash is clearly quicker than eager and stays so."""
        pairs = {}
        for one in points:
            if one.get("seconds") and one["kernel"] in ("eager", "flash"):
                pairs.setdefault(one["context"], {})[one["kernel"]] = one
        won = {n: apart(pair["flash"], pair["eager"]) for n, pair in sorted(pairs.items()) if len(pair) == 2}
        lasting = [n for n in won if all(later for other, later in won.items() if other >= n)]
        if not won:
            return ""
        if not lasting:
            return "Flash is not clearly quicker than eager at any of these lengths."
        return f"Flash is clearly quicker than eager from {lasting[0]:,} tokens on."


def _longest(points: list[Values]) -> list[Values]:
    timed = [one for one in points if one.get("seconds")]
    counts = [one["context"] for one in timed]
    shared = [count for count in counts if counts.count(count) > 1]
    return [one for one in timed if one["context"] == max(shared)] if shared else []


class _Bench(TorchBench):
    """Random queries, keys and values for each context; every kernel's result is compared with flash or math."""

    weighs: ClassVar[bool] = True

    def __init__(self, lab: AttentionContext, device: str):
        import torch

        self.lab, self.device, self.torch = lab, device, torch
        if device == "cpu":
            torch.set_num_threads(lab.threads)
        self.kind = torch.float32 if device == "cpu" else torch.float16
        self.held: dict[int, tuple] = {}
        self.masks: dict[tuple[str, int], Any] = {}
        self.compiled: Any = None

    def call(self, point: Values) -> Callable[[], Any]:
        context, kernel = point["context"], point["kernel"]
        self._room(point)
        run = {"eager": self._eager, "flex": self._flex}.get(kernel) or self._sdpa(kernel)
        data = self._data(context)

        def call() -> Any:
            with self.torch.no_grad():
                return run(*data)

        return call

    def _data(self, context: int) -> tuple:
        """Queries, keys and values [1, heads, context, width] made once for each context."""
        if context not in self.held:
            generator = self.torch.Generator(self.device).manual_seed(context)
            shape = (1, self.lab.heads, context, self.lab.width)
            data = tuple(self.torch.randn(shape, device=self.device, generator=generator).to(self.kind) for _ in "qkv")
            self.held[context] = data
        return self.held[context]

    def _mask(self, kernel: str, count: int, make: Callable[[], Any]) -> Any:
        """A mask is made once for all layers of a model, so it is no part of what is measured."""
        if (kernel, count) not in self.masks:
            self.masks[kernel, count] = make()
        return self.masks[kernel, count]

    def _room(self, point: Values) -> None:
        """Raises LeftOut where the matrices of scores would take more than half of what is free."""
        needed = 3 * self.lab.predict(point, None).get("bytes", 0)
        free = self.torch.cuda.mem_get_info()[0] if self.device == "cuda" else psutil.virtual_memory().available
        if needed > free / 2:
            raise LeftOut(f"{KERNELS[point['kernel']]} at {point['context']:,} tokens would need {size(needed)}.")

    def _eager(self, q: Any, k: Any, v: Any) -> Any:
        """As transformers does it: scores, mask, softmax in float32, product with the values."""
        count = q.shape[2]
        closed = {"fill_value": float("-inf"), "device": q.device, "dtype": q.dtype}
        mask = self._mask("eager", count, lambda: self.torch.full((count, count), **closed).triu(1))
        scores = q @ k.transpose(2, 3) * q.shape[3] ** -0.5 + mask
        return scores.softmax(-1, dtype=self.torch.float32).to(q.dtype) @ v

    def _sdpa(self, kernel: str) -> Callable[..., Any]:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        backend = {"math": SDPBackend.MATH, "efficient": SDPBackend.EFFICIENT_ATTENTION,
                   "flash": SDPBackend.FLASH_ATTENTION}[kernel]  # fmt: skip

        def run(q: Any, k: Any, v: Any) -> Any:
            with sdpa_kernel(backend), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    return self.torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
                except RuntimeError as error:
                    if "No viable backend" in str(error) or "No available kernel" in str(error):
                        raise LeftOut(f"{KERNELS[kernel]} does not exist for {self._name()}.") from None
                    raise

        return run

    def _flex(self, q: Any, k: Any, v: Any) -> Any:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        self.compiled = self.compiled or self.torch.compile(flex_attention, dynamic=False)
        count = q.shape[2]
        shape = {"B": None, "H": None, "Q_LEN": count, "KV_LEN": count, "device": self.device}
        mask = self._mask("flex", count, lambda: create_block_mask(_causal, **shape))
        return self.compiled(q, k, v, block_mask=mask)

    def check(self, point: Values, output: Any) -> Values:
        exact = self.torch.nn.functional.scaled_dot_product_attention(*self._data(point["context"]), is_causal=True)
        worst = (output - exact).abs().max().item()
        if not worst <= TOLERANCE[self.device] * exact.abs().max().item():
            raise ArithmeticError(f"{KERNELS[point['kernel']]} differs from SDPA by {worst:.3g}")
        return {"error": worst}

    def _name(self) -> str:
        where = self.torch.cuda.get_device_name() if self.device == "cuda" else "this processor"
        return f"{self.format} on {where}"


def _causal(batch: Any, head: Any, query: Any, key: Any) -> Any:
    return query >= key
