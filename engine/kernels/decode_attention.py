"""Attention of the newest tokens in one Triton kernel: head norm, rotation, cache write, one reading of the cache."""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from engine.kernels.attending import attended, divided
from engine.kernels.early import early
from engine.kernels.rope import HeadNorm

LOG2E = 1.4426950408889634

PROGRAMS = 264
"""Programs that fill the chip: two for each of an H200's 132 multiprocessors."""
LEAST = 8192
"""Numbers of keys below which a part is not worth the meeting of the parts: 64 columns of 128, 128 of 64."""
GATHERED = 8192
"""Numbers of the parts that the last program reads at a time."""
NARROW, BROAD = (128, 2), (32, 3)
"""Columns of the cache in a step of the loop, and steps under way: for heads of up to 64 numbers, and of more."""


@triton.jit
def _decode(
    qkv, cosines, sines, keys, values, places, pads, q_weight, k_weight, out, parts, peaks, totals, arrived,
    length, turn, scale, eps,
    TOKENS: tl.constexpr, GROUP: tl.constexpr, HEADS: tl.constexpr, SIZE: tl.constexpr, SPLITS: tl.constexpr,
    LEAST: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, R: tl.constexpr, TILE: tl.constexpr,
    NORM: tl.constexpr, WIDE: tl.constexpr, OWN: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One program for one part of the columns of one kv head of one row: all its TOKENS x GROUP queries."""
    split, head, row = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    place, pad = tl.load(places + row * OWN).to(tl.int32), tl.load(pads + row).to(tl.int32)
    active, base, chunk = divided(place, pad, SPLITS, LEAST, N)
    if split >= active:
        return
    attended(
        qkv, cosines, sines, keys, values, q_weight, k_weight, out, parts, peaks, totals, arrived,
        split, head, row, active, base, chunk, place, pad, length, turn, scale, eps,
        TOKENS, GROUP, HEADS, SIZE, SPLITS, M, N, D, R, TILE, NORM, WIDE,
    )  # fmt: skip


@dataclass(frozen=True)
class Parts:
    """What the programs of a row and kv head leave for the last of them; one is enough for all layers of a stream.

    parts float32 [rows, kv heads, splits, tokens x group, size], peaks and totals float32 without the last axis,
    arrived int32 [rows, kv heads], zero between two launches. `splits` is the most parts of a row's columns.
    """

    splits: int
    parts: torch.Tensor
    peaks: torch.Tensor
    totals: torch.Tensor
    arrived: torch.Tensor


def workspace(
    rows: int, tokens: int, heads: int, kv_heads: int, size: int, length: int, device: torch.device | str
) -> Parts:
    """The workspace of `decode_attention`: for `tokens` new ones in each row and a cache of `length` columns."""
    splits = max(1, min(triton.cdiv(PROGRAMS, rows * kv_heads), triton.cdiv(length, _least(size))))
    lines = rows * kv_heads * splits * tokens * (heads // kv_heads)
    peaks, totals = torch.zeros(2, lines, device=device)
    parts = torch.zeros(lines * size, device=device)
    return Parts(splits, parts, peaks, totals, torch.zeros(rows * kv_heads, dtype=torch.int32, device=device))


def _least(size: int) -> int:
    """Columns of the smallest part: whole steps of the loop."""
    columns, _ = NARROW if size <= 64 else BROAD
    return max(1, LEAST // (size * columns)) * columns


def decode_attention(
    qkv: torch.Tensor,
    angles: tuple[torch.Tensor, torch.Tensor],
    cache: tuple[torch.Tensor, torch.Tensor],
    place: torch.Tensor,
    pad: torch.Tensor,
    room: Parts,
    out: torch.Tensor | None = None,
    norm: HeadNorm | None = None,
    scale: float | None = None,
    soon: bool = False,
) -> torch.Tensor:
    """Rotate and cache the newest 1 to 16 tokens of every row, and attend to all columns so far.

    qkv [rows, tokens, (heads + 2 kv heads) x size], dense: queries, keys, values of a merged projection.
    angles: cosines and sines float32 [context, size / 2] (half a table is half the bytes; [context, size] does as
    well, its first half is read); token t of row r has position place + t - pad[r].
    cache: keys and values [rows, kv heads, length, size], dense, in qkv's number format; columns place to
    place + tokens - 1 are written here, as far as the cache reaches.
    place: int64, column of the first new token, [rows] or [1] for all of them; pad: int64 [rows], columns before it
    are not seen: token t sees column c if pad <= c <= place + t.
    room: of `workspace`, for the same sizes; norm: weights of the heads' RMSNorm before the rotation (Qwen3).
    scale: of the scores, 1 / sqrt(size) unless given. Sums are float32. soon: begun before the kernel ahead has ended.
    Returns [rows, tokens, heads x size], in `out` if given. One launch of a fixed grid, nothing read by the host.
    Raises ValueError for tensors that it would misread. Source: Dao et al., flash decoding (arXiv:2307.08691).
    """
    keys, values = cache
    rows, kv_heads, length, size = keys.shape
    tokens, heads = qkv.shape[1], qkv.shape[2] // size - 2 * kv_heads
    _check(qkv, angles, keys, values, place, heads, room)
    out = torch.empty(rows, tokens, heads * size, dtype=qkv.dtype, device=qkv.device) if out is None else out
    sizes, stages = shapes(tokens, heads, kv_heads, size, room.splits, keys.element_size())
    _decode[(room.splits, kv_heads, rows)](
        qkv, *angles, keys, values, place, pad, norm.q if norm else qkv, norm.k if norm else qkv, out,
        room.parts, room.peaks, room.totals, room.arrived,
        length, angles[0].stride(0), LOG2E * (size**-0.5 if scale is None else scale), norm.eps if norm else 0.0,
        **sizes, OWN=int(place.numel() > 1), NORM=norm is not None,
        WIDE=triton.knobs.runtime.interpret and qkv.dtype == torch.bfloat16,
        num_warps=4 if sizes["R"] <= 32 else 8, num_stages=stages, **early(soon),
    )  # fmt: skip
    return out


def shapes(tokens: int, heads: int, kv_heads: int, size: int, splits: int, itemsize: int) -> tuple[dict[str, int], int]:
    """What the kernel is compiled for, numbers of `itemsize` bytes, and how many of its loop's steps are under way."""
    lines, columns = tokens * heads // kv_heads, max(16, triton.next_power_of_2(size))
    wide = columns * itemsize
    block, stages = NARROW if size <= 64 else BROAD
    several = triton.next_power_of_2(lines)
    sizes = {"TOKENS": tokens, "GROUP": heads // kv_heads, "HEADS": heads, "SIZE": size, "SPLITS": splits}
    sizes |= {"LEAST": _least(size), "M": max(16, several), "N": block if wide <= 512 else min(block, 32)}
    sizes |= {"D": columns, "R": several}
    sizes["TILE"] = min(triton.next_power_of_2(splits), max(1, GATHERED // (several * columns)))
    return sizes, stages if wide <= 256 else 2


def _check(qkv, angles, keys, values, place, heads: int, room: Parts) -> None:
    """Raises ValueError for tensors that the kernel would misread."""
    rows, kv_heads, _, size = keys.shape
    tokens = qkv.shape[1]
    if not (qkv.is_contiguous() and keys.is_contiguous() and values.is_contiguous()):
        raise ValueError("The projection and the cache must be dense.")
    if len({qkv.dtype, keys.dtype, values.dtype}) > 1:
        raise ValueError("Queries, keys, values and cache must have one number format.")
    if size % 2 or heads < 1 or heads % kv_heads or qkv.shape != (rows, tokens, (heads + 2 * kv_heads) * size):
        raise ValueError("The projection must hold a group of heads of an even size for each kv head of the cache.")
    if not 1 <= tokens <= 16:
        raise ValueError(f"The kernel takes 1 to 16 new tokens in a row, not {tokens}.")
    if any(table.stride(-1) != 1 or table.stride(0) != angles[0].stride(0) for table in angles):
        raise ValueError("The tables of angles must have rows that lie alike.")
    if room.peaks.numel() != rows * room.splits * tokens * heads or place.numel() not in (1, rows):
        raise ValueError("The workspace or the places were made for other sizes.")
