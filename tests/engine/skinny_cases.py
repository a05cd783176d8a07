"""Products of few rows against float64; run as a program, so that the interpreter can be chosen."""

import sys

import torch

from engine.kernels.matrix import Matrix
from engine.kernels.skinny import Norm, product

DEVICE = sys.argv[1] if len(sys.argv) > 1 else "cpu"
CLOSE = {torch.float32: 5e-6, torch.bfloat16: 2e-2, torch.float16: 4e-3}
PACKED = 5e-4
"""Whole numbers are read as fractions, or inputs rounded to 16 bits, which costs some of a float32's last bits."""
SHAPES = ((5, 64, 2), (66, 576, 1), (96, 96, 3), (32, 1152, 17), (6, 4128, 1))
"""Rows, depth and tokens."""
KEPT = {"plain": 0.0, "int8": 0.006, "int4": 0.13}
"""How far a packed weight may be from its own, relative to the largest of its row."""


def random(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(*shape, device=DEVICE).to(dtype)


def close(name: str, found: torch.Tensor, wanted: torch.Tensor) -> None:
    bound = max(CLOSE[found.dtype], PACKED * ("int" in name)) * max(1.0, float(wanted.abs().max()))
    worst = float((found.double() - wanted).abs().max())
    assert worst <= bound, f"{name}: off by {worst}, allowed {bound}"


def normed(x: torch.Tensor, norm: Norm) -> torch.Tensor:
    x = x.double()
    return x / (x.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt() * norm.gain.double()


def cases(dtype: torch.dtype, kind: str, rows: int, depth: int, tokens: int) -> None:
    weight = random(rows, depth, dtype=dtype) / depth**0.5
    matrix = Matrix(weight, kind)
    plain = matrix.dense(torch.float64).double()
    worst = ((plain - weight.double()).abs().amax(1) / weight.double().abs().amax(1)).max()
    assert worst <= KEPT[kind], f"{kind} keeps a weight wrong by {worst}"
    x, out = random(tokens, depth, dtype=dtype), torch.full((tokens, rows), float("nan"), device=DEVICE, dtype=dtype)
    name = f"{kind} {dtype} {rows} x {depth}, {tokens}"
    close(name, product(x, matrix, out), x.double() @ plain.T)
    norm = Norm(random(depth, dtype=torch.float32), 1e-5)
    bias, residual = random(rows, dtype=torch.float32), random(tokens, rows, dtype=dtype)
    wanted = normed(x, norm) @ plain.T
    close(f"norm, {name}", product(x, matrix, out, norm, bias), wanted + bias.double())
    kept = residual.clone()
    product(x, matrix, residual, residual=residual)
    close(f"in place, {name}", residual, x.double() @ plain.T + kept.double())
    if rows % 2 == 0:
        gate, up = wanted.chunk(2, -1)
        half = torch.full((tokens, rows // 2), float("nan"), device=DEVICE, dtype=dtype)
        close(f"gated, {name}", product(x, matrix, half, norm, gated=True), torch.nn.functional.silu(gate) * up)


def main() -> None:
    torch.manual_seed(0)
    for dtype in CLOSE:
        for rows, depth, tokens in SHAPES:
            for kind in KEPT:
                cases(dtype, kind, rows, depth, tokens)
    print("every product agrees")


if __name__ == "__main__":
    main()
