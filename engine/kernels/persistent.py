"""A whole decode step of one text as a single kernel whose programs stay: instead of ending, they meet.

An open question, and no way of the page: do barriers between resident programs cost less than boundaries between the
kernels of a recording? `python -m engine bench --gpu --only 135m-persistent` answers it on a GPU. This was never run on
one, and until it has won there no lane takes it. See DECISIONS.md, 2026-11-26.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from engine.kernels.argmax import COLUMNS, Feed, Peaks, chosen, ends
from engine.kernels.attending import attended, divided
from engine.kernels.decode_attention import LOG2E, shapes, workspace
from engine.kernels.epilogue import finished
from engine.kernels.meeting import BROKEN, PATIENCE, WORDS, arrive, leave, met
from engine.kernels.skinny import added
from engine.refusal import Refusal

HELD = 16384
"""Weights that a program asks for at once, twice as many of a gated product: with 8 warps 32 registers a thread."""
WARPS = 8


@triton.jit
def _asked(
    weight, turn, ROWS: tl.constexpr, DEPTH: tl.constexpr, GATED: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    PROGRAMS: tl.constexpr,
):  # fmt: skip
    """The rows [BN, BK] of a matrix that are this program's in a turn, and those that they gate."""
    row = (turn * PROGRAMS + tl.program_id(0)) * BN + tl.arange(0, BN)
    column = tl.arange(0, BK)
    known = (row < ROWS)[:, None] & (column < DEPTH)[None, :]
    place = weight + row[:, None].to(tl.int64) * DEPTH + column[None, :]
    found = tl.load(place, mask=known, other=0.0)
    return found, tl.load(place + ROWS * DEPTH, mask=known, other=0.0) if GATED else found


@triton.jit
def _product(
    ahead, beside, x, gain, weight, bias, residual, out, eps, ROWS: tl.constexpr, DEPTH: tl.constexpr,
    NORM: tl.constexpr, GATED: tl.constexpr, ADD: tl.constexpr, BIAS: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    PROGRAMS: tl.constexpr,
):  # fmt: skip
    """out = x W^T, as skinny.product has it; the tiles of the first turn were asked for before the barrier."""
    first = tl.program_id(0) * BN
    for turn in tl.range(0, tl.cdiv(tl.maximum(ROWS - first, 0), BN * PROGRAMS), num_stages=1):
        w, other = ahead, beside
        if BN * PROGRAMS < ROWS:
            ahead, beside = _asked(weight, turn + 1, ROWS, DEPTH, GATED, BN, BK, PROGRAMS)
            tl.debug_barrier()  # the assembler would ask for them after the sums
        total, square = added(w, x, gain, tl.arange(0, BK), tl.zeros((BK,), tl.float32), DEPTH, NORM, BK)
        second = total
        if GATED:
            second, _ = added(other, x, gain, tl.arange(0, BK), square, DEPTH, NORM, BK)
        scale = 1.0 / tl.sqrt(tl.sum(square, 0) / DEPTH + eps) if NORM else 1.0
        row = turn * (BN * PROGRAMS) + first + tl.arange(0, BN)
        finished(
            tl.sum(total, 1) * scale, tl.sum(second, 1) * scale, row, row, x, bias, residual, out, row < ROWS,
            ROWS, GATED, ADD, BIAS, 0,
        )  # fmt: skip


@triton.jit
def _phase(
    state, arrivals, patience, x, gain, weight, bias, residual, out, eps, ROWS: tl.constexpr, DEPTH: tl.constexpr,
    NORM: tl.constexpr, GATED: tl.constexpr, ADD: tl.constexpr, BIAS: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    PROGRAMS: tl.constexpr,
):  # fmt: skip
    """A product between two barriers. Weights depend on nobody: they are asked for before all others have come."""
    w, other = _asked(weight, 0, ROWS, DEPTH, GATED, BN, BK, PROGRAMS)
    patience = met(state, arrivals, patience)
    _product(
        w, other, x, gain, weight, bias, residual, out, eps, ROWS, DEPTH, NORM, GATED, ADD, BIAS, BN, BK, PROGRAMS
    )  # fmt: skip
    arrive(state)
    return patience


@triton.jit
def _attention(
    state, arrivals, patience, qkv, cosines, sines, cache, place, pad, q_norm, k_norm, out, parts, peaks, totals,
    arrived, length, turn, scale, eps, TOKENS: tl.constexpr, GROUP: tl.constexpr, HEADS: tl.constexpr,
    SIZE: tl.constexpr, SPLITS: tl.constexpr, LEAST: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
    R: tl.constexpr, TILE: tl.constexpr, NORM: tl.constexpr, WIDE: tl.constexpr, PROGRAMS: tl.constexpr,
):  # fmt: skip
    """The parts of all kv heads' columns, dealt out, between two barriers."""
    KV: tl.constexpr = HEADS // GROUP
    active, base, chunk = divided(place, pad, SPLITS, LEAST, N)
    patience = met(state, arrivals, patience)
    for item in tl.range(tl.program_id(0), KV * active, PROGRAMS, num_stages=1):
        attended(
            qkv, cosines, sines, cache, cache + KV * length * SIZE, q_norm, k_norm, out, parts, peaks, totals, arrived,
            item // KV, item % KV, tl.full((), 0, tl.int64), active, base, chunk, place, pad, length, turn, scale, eps,
            TOKENS, GROUP, HEADS, SIZE, SPLITS, M, N, D, R, TILE, NORM, WIDE,
        )  # fmt: skip
    arrive(state)
    return patience


@triton.jit
def _step(
    qkv, heads, inner, logits, qkv_weight, out_weight, gate_weight, down_weight, head, biases, gains, feed_gains,
    last_gain, q_norms, k_norms, cosines, sines, cache, pads, parts, peaks, totals, arrived, state, banned, best, ids,
    compared, newest, places, steps, ring, words, stamps, embedding, hidden, ended, slots, width, bans, length, turn,
    scale, eps,
    LAYERS: tl.constexpr, HIDDEN: tl.constexpr, INNER: tl.constexpr, VOCABULARY: tl.constexpr, BIAS: tl.constexpr,
    NORM: tl.constexpr, WIDE: tl.constexpr, QKV_N: tl.constexpr, OUT_N: tl.constexpr, GATE_N: tl.constexpr,
    DOWN_N: tl.constexpr, HEAD_N: tl.constexpr, OUT_K: tl.constexpr, DOWN_K: tl.constexpr, P: tl.constexpr,
    LOOKS: tl.constexpr, TOKENS: tl.constexpr, GROUP: tl.constexpr, HEADS: tl.constexpr, SIZE: tl.constexpr,
    SPLITS: tl.constexpr, LEAST: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, R: tl.constexpr,
    TILE: tl.constexpr, MAILBOX: tl.constexpr, STAMPED: tl.constexpr, EMBEDDED: tl.constexpr, WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """Five phases a layer, the head, and the choice, by P programs; between any two phases all of them meet."""
    SEEN: tl.constexpr = HEADS * SIZE
    EVERY: tl.constexpr = (HEADS + 2 * (HEADS // GROUP)) * SIZE
    place, pad = tl.load(places).to(tl.int32), tl.load(pads).to(tl.int32)
    left, one = tl.full((), LOOKS, tl.int32), tl.full((), 1, tl.int64)
    for layer in tl.range(0, LAYERS, num_stages=1):
        at, so_far = layer * one, 5 * layer * P
        left = _phase(
            state, so_far, left, hidden, gains + at * HIDDEN, qkv_weight + at * (EVERY * HIDDEN), biases + at * EVERY,
            hidden, qkv, eps, EVERY, HIDDEN, True, False, False, BIAS, QKV_N, WIDTH, P,
        )  # fmt: skip
        left = _attention(
            state, so_far + P, left, qkv, cosines, sines, cache + at * (2 * HEADS // GROUP * SIZE) * length, place, pad,
            q_norms + at * SIZE, k_norms + at * SIZE, heads, parts, peaks, totals, arrived, length, turn, scale, eps,
            TOKENS, GROUP, HEADS, SIZE, SPLITS, LEAST, M, N, D, R, TILE, NORM, WIDE, P,
        )  # fmt: skip
        left = _phase(
            state, so_far + 2 * P, left, heads, heads, out_weight + at * (HIDDEN * SEEN), heads, hidden, hidden, eps,
            HIDDEN, SEEN, False, False, True, False, OUT_N, OUT_K, P,
        )  # fmt: skip
        left = _phase(
            state, so_far + 3 * P, left, hidden, feed_gains + at * HIDDEN, gate_weight + at * (2 * INNER * HIDDEN),
            hidden, hidden, inner, eps, INNER, HIDDEN, True, True, False, False, GATE_N, WIDTH, P,
        )  # fmt: skip
        left = _phase(
            state, so_far + 4 * P, left, inner, inner, down_weight + at * (HIDDEN * INNER), inner, hidden, hidden, eps,
            HIDDEN, INNER, False, False, True, False, DOWN_N, DOWN_K, P,
        )  # fmt: skip
    left = _phase(
        state, 5 * LAYERS * P, left, hidden, last_gain, head, hidden, hidden, logits, eps,
        VOCABULARY, HIDDEN, True, False, False, False, HEAD_N, WIDTH, P,
    )  # fmt: skip
    left = met(state, (5 * LAYERS + 1) * P, left)
    blocks: tl.constexpr = (VOCABULARY + COLUMNS - 1) // COLUMNS
    for block in tl.range(tl.program_id(0), blocks, P, num_stages=1):
        chosen(
            block, 0 * one, blocks, 1, logits, banned, best, ids, compared, newest, places, steps, ring, words, stamps,
            embedding, hidden, ended, slots, width, VOCABULARY, bans,
            MAILBOX, STAMPED, EMBEDDED, WIDTH, COLUMNS, BLOCKS,
        )  # fmt: skip
    leave(state, left, P)


class Persistent:
    """The step of `weights` in the one row of `context`, as engine.decode.gpu_pass makes them, not packed.

    All layers' weights are copied one after the other, so that the kernel finds them by a layer's number.
    Raises ValueError for packed weights or several rows.
    """

    def __init__(self, weights: Any, context: Any):
        layers, device = weights.layers, context.place.device
        if context.rows > 1 or any(matrix.bits for matrix in weights.matrices()):
            raise ValueError("The persistent step takes one row and weights that are not packed.")
        self.weights, self.context = weights, context
        self.matrices = [
            torch.stack([getattr(layer, name).weight for layer in layers]) for name in ("qkv", "out", "gate_up", "down")
        ]
        self.vectors = [
            None if parts[0] is None else torch.stack(parts) for parts in zip(*map(_vectors, layers), strict=True)
        ]
        self.programs = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
        self.state = torch.zeros(WORDS, dtype=torch.int32, device=device)
        (qkv, _), (_, seen), _, (_, inner) = (stack.shape[1:] for stack in self.matrices)
        self.between = [torch.zeros(size, dtype=weights.dtype, device=device) for size in (qkv, seen, inner)]
        self.logits = torch.zeros(1, weights.head.rows, device=device)
        self.parts = workspace(1, 1, weights.heads, weights.kv_heads, weights.size, context.length, device)

    def launch(self, feed: Feed, peaks: Peaks, banned: torch.Tensor | None = None) -> None:
        """One step: from the vectors in `feed.hidden`, at the context's place, to the next token and its vectors.

        `feed` and `peaks` as of kernels.argmax, `feed.place` the context's. Nothing is read by the host.
        """
        given, constants = self.given(feed, peaks, banned)
        together = {"launch_cooperative_grid": True} if self.state.is_cuda else {}
        _step[(self.programs,)](*given, **constants, num_warps=WARPS, **together)

    def given(self, feed: Feed, peaks: Peaks, banned: torch.Tensor | None) -> tuple[tuple, dict[str, Any]]:
        """The kernel's arguments, and what it is compiled for."""
        weights, context, parts = self.weights, self.context, self.parts
        ending, flags = ends(feed)
        absent = weights.embedding
        bias, gains, feed_gains, q_norms, k_norms = (absent if one is None else one for one in self.vectors)
        turns = context.angles[0]
        bans = 0 if banned is None else len(banned)
        given = (
            *self.between, self.logits, *self.matrices, weights.head.weight, bias, gains, feed_gains, weights.norm.gain,
            q_norms, k_norms, *context.angles, context.cache, context.pad, parts.parts, parts.peaks, parts.totals,
            parts.arrived, self.state, banned if bans else feed.tokens, peaks.peaks, peaks.ids, peaks.met, *ending,
            bans, context.length, turns.stride(0), LOG2E * weights.size**-0.5, weights.norm.eps,
        )  # fmt: skip
        return given, {**self._sizes(), **flags, "COLUMNS": COLUMNS, "BLOCKS": _power(peaks.peaks.shape[1])}

    def _sizes(self) -> dict[str, Any]:
        """Of the model, of the tiles of its products, and of its attention."""
        weights, itemsize = self.weights, self.weights.dtype.itemsize
        (qkv, hidden), (_, seen), _, (_, inner) = (stack.shape[1:] for stack in self.matrices)
        model = {"LAYERS": len(weights.layers), "HIDDEN": hidden, "INNER": inner, "VOCABULARY": weights.head.rows}
        products = {"QKV": (qkv, hidden), "OUT": (hidden, seen), "GATE": (inner, hidden), "DOWN": (hidden, inner),
                    "HEAD": (weights.head.rows, hidden)}  # fmt: skip
        tiles = {f"{name}_N": _lines(*shape, self.programs) for name, shape in products.items()}
        tiles |= {"OUT_K": _power(seen), "DOWN_K": _power(inner), "P": self.programs, "LOOKS": PATIENCE}
        attention, _ = shapes(1, weights.heads, weights.kv_heads, weights.size, self.parts.splits, itemsize)
        wide = triton.knobs.runtime.interpret and weights.dtype == torch.bfloat16
        vectors = {"BIAS": self.vectors[0] is not None, "NORM": self.vectors[3] is not None, "WIDE": wide}
        return model | tiles | attention | vectors

    def check(self) -> None:
        """After the device has been waited for: raises Refusal where programs have waited for each other in vain."""
        if int(self.state[BROKEN.value]):
            self.state.zero_()
            raise Refusal(
                "The programs of the persistent step have not met: some did not run beside the others.",
                "Use the recorded step, and leave the GPU to this process alone.",
            )


def _vectors(layer: Any) -> tuple[torch.Tensor | None, ...]:
    """A layer's bias, the gains of its two norms, and those of its heads."""
    heads = (layer.heads.q.detach(), layer.heads.k.detach()) if layer.heads else (None, None)
    return (layer.bias, layer.attention_norm.gain, layer.feed_norm.gain, *heads)


def _lines(rows: int, depth: int, programs: int) -> int:
    """Rows of a matrix that a program has at once: all of them have some, and none more than it can hold."""
    return max(1, min(_power(triton.cdiv(rows, programs)), HELD // _power(depth)))


def _power(number: int) -> int:
    return triton.next_power_of_2(number)
