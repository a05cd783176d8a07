"""Kernels against the plain operators in float64; run as a program, so that the interpreter can be chosen."""

import sys

import torch

from engine.kernels.rms_norm import rms_norm
from engine.kernels.rope import HeadNorm, rope_into_cache
from engine.kernels.swiglu import swiglu

DEVICE = sys.argv[1] if len(sys.argv) > 1 else "cpu"
CLOSE = {torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}
"""Allowed difference, relative to the largest magnitude: a rounding of the result, and a little for float32 sums."""


def random(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(*shape, device=DEVICE).to(dtype)


def close(name: str, found: torch.Tensor, wanted: torch.Tensor) -> None:
    bound = CLOSE[found.dtype] * max(1.0, float(wanted.abs().max()))
    worst = float((found.double() - wanted).abs().max())
    assert worst <= bound, f"{name}: off by {worst}, allowed {bound}"
    assert found.shape == wanted.shape


def plain_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight.double()


def plain_turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x [batch, tokens, heads, size], rotated as pairs of (i, i + size / 2)."""
    cos, sin = cos.double()[:, :, None], sin.double()[:, :, None]
    first, second = x.double().chunk(2, -1)
    c, s = cos.chunk(2, -1)[0], sin.chunk(2, -1)[0]
    return torch.cat((first * c - second * s, second * c + first * s), -1)


def norms(dtype: torch.dtype) -> None:
    for shape in ((1, 1, 576), (3, 5, 37), (2, 1, 1), (2, 129)):
        x, residual, weight = (random(*s, dtype=dtype) for s in (shape, shape, shape[-1:]))
        normed, same = rms_norm(x, weight, 1e-6)
        close("norm", normed, plain_norm(x.double(), weight, 1e-6))
        assert same is x
        for one_plus in (False, True):
            normed, total = rms_norm(x, weight, 1e-6, residual, one_plus)
            close("sum", total, x.double() + residual.double())
            w = weight.double() + one_plus
            close("norm of sum", normed, plain_norm(total.double(), w, 1e-6))
        wide = random(*shape[:-1], 2 * shape[-1], dtype=dtype)
        half = wide[..., : shape[-1]]
        close("norm of a slice", rms_norm(half, weight, 1e-6)[0], plain_norm(half.double(), weight, 1e-6))


def gates(dtype: torch.dtype) -> None:
    for shape in ((1, 1, 1536), (3, 5, 37), (2, 1025), (1, 1)):
        merged = 3 * random(*shape[:-1], 2 * shape[-1], dtype=dtype)
        gate, up = merged.split(shape[-1], -1)
        wide = gate.double(), up.double()
        close("silu", swiglu(gate, up), torch.nn.functional.silu(wide[0]) * wide[1])
        gelu = torch.nn.functional.gelu(wide[0], approximate="tanh") * wide[1]
        close("gelu", swiglu(gate, up, "gelu_tanh"), gelu)


def ropes(dtype: torch.dtype) -> None:
    cases = ((1, 1, 9, 3, 64, 0), (3, 5, 4, 2, 10, 4), (2, 3, 2, 1, 6, 9), (2, 1, 4, 4, 96, 7))
    for batch, tokens, heads, kv_heads, size, first in cases:
        for normed, each, away in ((False, False, False), (True, False, True), (False, True, False)):
            rope_case(dtype, batch, tokens, heads, kv_heads, size, first, normed, each, away)


def rope_case(dtype, batch, tokens, heads, kv_heads, size, first, normed, each, away) -> None:
    """From one column on or from a column of `each` row, in the rows of the cache or in others of a larger one."""
    length = 16
    merged = random(batch, tokens, (heads + 2 * kv_heads) * size, dtype=dtype)
    q, k, v = merged.split([heads * size, kv_heads * size, kv_heads * size], -1)
    q, k, v = (part.view(batch, tokens, -1, size) for part in (q, k, v))
    starts = torch.tensor([first + row * each for row in range(batch if each else 1)], device=DEVICE)
    turns = random(batch if each else 1, tokens, size // 2, dtype=torch.float32)
    cos, sin = (torch.cat((angle, angle), -1).to(dtype) for angle in (turns.cos(), turns.sin()))
    keys, values = (random(batch + 2 * away, kv_heads, length, size, dtype=dtype) for _ in range(2))
    rows = [batch + 1 - row if away else row for row in range(batch)]
    before = keys.clone(), values.clone()
    norm = HeadNorm(*(random(size, dtype=dtype) for _ in range(2)), 1e-6) if normed else None
    there = torch.tensor(rows, device=DEVICE) if away else None
    turned = rope_into_cache(q, k, v, (cos, sin), (keys, values), starts if each else starts[0], norm, there)
    wide = [q.double(), k.double()]
    if norm:
        wide = [plain_norm(part, w, 1e-6) for part, w in zip(wide, (norm.q, norm.k), strict=True)]
    wanted = [plain_turn(part, cos, sin).transpose(1, 2) for part in wide]
    close("queries", turned, wanted[0])
    for row in range(batch):
        start = first + row * each
        span = slice(start, start + tokens)
        close("keys", keys[rows[row], :, span], wanted[1][row])
        assert torch.equal(values[rows[row], :, span], v[row].transpose(0, 1)), "values are copied as they are"
        for now, then in zip((keys, values), before, strict=True):
            now[rows[row], :, span] = then[rows[row], :, span]
    assert torch.equal(keys, before[0]) and torch.equal(values, before[1]), "nothing else in the cache is touched"


def overflow() -> None:
    """A position beyond the cache is not written, not even into the next head."""
    q, k, v = (random(1, 2, heads, 8, dtype=torch.float32) for heads in (2, 2, 2))
    angle = torch.ones(1, 2, 8, device=DEVICE)
    keys, values = torch.zeros(2, 1, 2, 4, 8, device=DEVICE)
    rope_into_cache(q, k, v, (angle, angle), (keys, values), torch.tensor(3, device=DEVICE))
    for kept in (keys, values):
        assert kept[:, :, 3].any() and not kept[:, :, :3].any()


def main() -> None:
    torch.manual_seed(0)
    for dtype in CLOSE:
        norms(dtype)
        gates(dtype)
        ropes(dtype)
    overflow()
    print("every kernel agrees")


if __name__ == "__main__":
    main()
