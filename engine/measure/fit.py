"""Fit: how much memory a lane will take, told before anything is loaded, and whether that much is there."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.measure.ceiling import CACHE_STEP, Use, apart, guesser, keeps_all, plan_of, used
from engine.measure.formats import PLAIN, Formats, formats, plain_bytes
from engine.measure.machine import machine
from engine.measure.timeline import Timeline
from engine.models.architecture import Architecture
from engine.models.parameters import parameters
from engine.plan import Plan
from engine.refusal import Refusal

PROCESS = 481_000_000
"""An idle worker with its libraries, where the probe has not measured it: torch 2.13, transformers 5.24, Linux."""
LOADED = 50_000_000
"""A tokenizer, threads and what the allocator keeps, beyond the idle process. Measured: 50 to 58 MB."""
LIBRARIES = {"bitsandbytes": 65_000_000, "torchao": 62_000_000}
"""What a quantizing library adds to a process. Measured: 50 to 95 MB, and 10 or 115 MB, by chance, for torchao."""
HEADER = 16_000_000
"""What the header of a GGUF file leaves behind: pools of Python's allocator, freed but for a few objects in each."""
NUMBA = 214_000_000
"""What numba adds to a process where it compiles the native step. Measured: 214 MB, and 105 from its cache."""
COMPILED = 1.8
"""What a step that is compiled for a processor adds, over the weights: they are frozen into it and packed."""
CONTEXT = 600_000_000
"""A GPU's context, with the programs that are loaded onto it."""
SET_ASIDE = 32 << 20
"""What cuBLAS sets aside on each stream that it multiplies on. Measured: 33.6 MB on an H200, in every lane."""
BY_CUBLAS = range(65, 513)
"""Tokens of prompts that a GPU's native step reads by a recording in which cuBLAS multiplies: engine.decode.gpu."""
LIVE = 1.6
"""What a prompt's activations take over those that must be there at once: buffers that wait for their next use."""
SCORES = 5.3
"""Copies of a layer's score matrix that eager attention has at once: raw, masked, its softmax in float32, narrowed."""
WINDOW_SLACK = 64
"""Places that a windowed cache has beyond its window."""
ON_GPU_LAYERS = 2
"""Layers whose keys and values are on the GPU at once when the cache is offloaded."""


@dataclass(frozen=True)
class Fit:
    """Bytes. `peak` is the most that the rounds take, `load` the most while loading, `room` what is there for them.

    `weights` and `kv` are the tensors (a draft's included), `workspace` activations and what growing caches leave
    behind, `process` the processes themselves with their libraries. On a GPU peak and load are those of the device.
    """

    weights: float
    kv: float
    workspace: float
    process: float
    peak: float
    load: float
    room: float | None
    device: str

    @property
    def needed(self) -> float:
        return max(self.peak, self.load)

    @property
    def fits(self) -> bool | None:
        """None where it is not known how much there is."""
        return None if self.room is None else self.needed <= self.room

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "needed": self.needed, "fits": self.fits}


def fit(plan: Plan, shape: Architecture, use: Use, process: float | None, room: float | None = None) -> Fit:
    """Predict a lane's memory. `use` are its longest requests, `process` the bytes of an idle worker."""
    how = formats(plan, shape)
    draft = guesser(plan, shape, how) if plan.draft else None
    weights = weight_bytes(shape, how) + _embedding(plan, shape) + (weight_bytes(*draft) if draft else 0.0)
    kv = kv_bytes(plan, shape, how, use) + (use.prompt + use.output) * (
        _token(*draft) if draft and apart(plan) else 0.0
    )
    workspace = _activations(plan, shape, how, use) + _growth(plan, shape, how, use, kv)
    copies, ranks = plan.replicas, plan.tensor_parallel
    if plan.device == "cuda":
        kv *= min(1.0, ON_GPU_LAYERS / max(1, shape.layers)) if plan.offload else 1.0
        workspace += SET_ASIDE * _streams(plan, use)
        peak = weights / ranks + kv / ranks + workspace
        return Fit(
            weights / ranks, kv / ranks, workspace, CONTEXT, peak + CONTEXT, weights / ranks + CONTEXT, room, "cuda"
        )
    own = (process or PROCESS) + LOADED + _libraries(plan, weights) + HEADER * _from_gguf(shape)
    peak = copies * (weights + kv + workspace) + copies * ranks * own
    load = copies * ranks * own + copies * _loading(plan, shape, weights)
    return Fit(copies * weights, copies * kv, copies * workspace, copies * ranks * own, peak, load, room, "cpu")


def foreseen(
    effective: dict[str, Any], lines: Sequence[Timeline], figures: dict[str, Any] | None
) -> dict[str, float] | None:
    """What would have been predicted for a lane that ran, by the parts of `engine.measure.memory_parts`; or None."""
    plan = plan_of(effective)
    use = used(lines, plan) if plan and plan.shape else None
    if not use:
        return None
    told = fit(plan, plan.shape, use, (figures or {}).get("process_bytes"))
    return {"weights": told.weights, "kv": told.kv, "activations": told.workspace, "other": told.process}


def weight_bytes(shape: Architecture, how: Formats) -> float:
    """Bytes of all weights: linear layers in their own format, everything else plain."""
    counted = parameters(shape)
    linear = counted.linear + counted.experts
    return linear * how.weight + (counted.total - linear) * how.plain


def _loading(plan: Plan, shape: Architecture, weights: float) -> float:
    """The most that weights take while they are loaded: plain ones, and what is made of them layer by layer.

    transformers widens each matrix of a GGUF file to float32 and copies it; the largest is the embedding.
    """
    counted = parameters(shape)
    widened = 2 * PLAIN["float32"] * counted.embedding * _from_gguf(shape)
    if not (plan.quantization or plan.native):
        return weights + widened
    plain = counted.total * PLAIN[plan.dtype]
    return plain + max(widened, weights if plan.native else weights / 2)


def _from_gguf(shape: Architecture) -> bool:
    return shape.quantized == "gguf"


def _embedding(plan: Plan, shape: Architecture) -> float:
    """A packed step looks tokens up in the plain embedding, beside a head in whole numbers."""
    if not plan.packed:
        return 0.0
    return parameters(shape).embedding * (plain_bytes(plan, shape) - (0.0 if shape.tied else 1.0))


def kv_bytes(plan: Plan, shape: Architecture, how: Formats, use: Use) -> float:
    """Bytes of the keys and values at the end of the longest requests, as the plan keeps them."""
    if plan.cache == "off" or not shape.keeps_kv:
        return 0.0
    length = use.prompt + use.output + (use.guesses + 1 if use.guesses else 0)
    if plan.continuous or plan.cache == "static":
        length = -(-length // CACHE_STEP) * CACHE_STEP
    elif plan.window:
        length = plan.window["window"] + plan.window["sinks"] + WINDOW_SLACK
    slot = _places(plan, shape, length) * 2 * shape.kept_heads * shape.head_dim * how.kv
    budget = (plan.continuous or {}).get("memory_mb", 0) * 1e6
    kept = slot * (min(use.rows, budget // slot) if budget else use.rows)
    return kept + bool(plan.prefix) * use.prompt * _token(shape, how)


def check(fitted: Fit, smaller: str) -> None:
    """Raises Refusal where a lane cannot fit; `smaller` says what would."""
    if fitted.fits is False:
        where = "the GPU" if fitted.device == "cuda" else "this machine"
        raise Refusal(
            f"This lane needs about {size(fitted.needed)} of memory, and {where} has {size(fitted.room)} to spare.",
            smaller,
        )


def spans(fitted: dict[str, Any]) -> str:
    """Both peaks of a forecast in one phrase; one figure where they are the same to the reader."""
    runs, loads = size(fitted["peak"]), size(fitted["load"])
    if fitted["load"] <= fitted["peak"] or runs == loads:
        return runs
    return f"{runs} while it runs, {loads} while it loads"


def size(count: float) -> str:
    """Bytes as a person says them: 1.1 GB, 870 MB."""
    return f"{count / 1e9:.1f} GB" if count >= 0.95e9 else f"{count / 1e6:.0f} MB"


def _token(shape: Architecture, how: Formats) -> float:
    return shape.kv_bytes_per_token(how.kv)


def _places(plan: Plan, shape: Architecture, length: float) -> float:
    """Places of one request in all layers."""
    narrow = min(length, shape.window) if shape.window and not keeps_all(plan) else length
    return (shape.layers - shape.sliding) * length + shape.sliding * narrow


def _activations(plan: Plan, shape: Architecture, how: Formats, use: Use) -> float:
    """Of the longest pass: the prompts that are read together, one layer at a time."""
    tokens = use.together * use.prompt
    if plan.continuous:
        tokens = min(plan.continuous["chunk"], use.rows * use.prompt) + use.rows
    width = max(shape.feed_forward, shape.experts_per_token * shape.expert_width + shape.shared_width)
    live = tokens * ((3 if shape.family.gated else 2) * width + 4 * shape.hidden) * how.plain
    scores = use.together * shape.heads * use.prompt**2 * how.plain if plan.attention == "eager" else 0.0
    logits = use.rows * (use.guesses + 1) * shape.vocabulary * how.plain
    return LIVE * live + SCORES * scores + logits


def _growth(plan: Plan, shape: Architecture, how: Formats, use: Use, kv: float) -> float:
    """A cache that grows is copied with every token; on a processor the places it leaves behind stay in use."""
    if plan.cache == "off":
        return use.rows * (use.prompt + use.output) * _token(shape, how) if plan.device == "cpu" else 0.0
    if plan.cache != "dynamic" or plan.continuous or plan.window:
        return 0.0
    return kv if plan.device == "cpu" else kv / max(1, shape.layers)


def _streams(plan: Plan, use: Use) -> int:
    """Those that cuBLAS multiplies on: a recording has one of its own, a native one for long enough prompts only."""
    if plan.native:
        tokens = use.together * use.prompt
        return 1 + (not plan.packed and BY_CUBLAS.start <= tokens < BY_CUBLAS.stop)
    return 1 + bool(plan.graph)


def _libraries(plan: Plan, weights: float) -> float:
    """What the lane's libraries and its compiled step add to a process."""
    quantizing = {(part or {}).get("library") for part in (plan.quantization, (plan.draft or {}).get("quantization"))}
    numba = NUMBA * (plan.native and plan.device == "cpu" and not machine().compiler)
    return sum(LIBRARIES.get(name, 0) for name in quantizing) + bool(plan.compile) * COMPILED * weights + numba
