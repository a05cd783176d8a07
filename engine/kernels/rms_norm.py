"""RMSNorm, with the addition of the residual that comes before it, in one Triton kernel."""

import torch
import triton
import triton.language as tl


@triton.jit
def _rms_norm(
    values, residual, weight, normed, total, columns, eps,
    ADD: tl.constexpr, ONE_PLUS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * columns
    place = tl.arange(0, BLOCK)
    inside = place < columns
    x = tl.load(values + row + place, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        x += tl.load(residual + row + place, mask=inside, other=0.0).to(tl.float32)
        # rounded as the plain sum would be, so that what is normalised is what is kept
        rounded = x.to(total.dtype.element_ty)
        tl.store(total + row + place, rounded, mask=inside)
        x = rounded.to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(x * x, axis=0) / columns + eps)
    w = tl.load(weight + place, mask=inside, other=0.0).to(tl.float32)
    if ONE_PLUS:
        w += 1.0
    tl.store(normed + row + place, (x * scale * w).to(normed.dtype.element_ty), mask=inside)


def rms_norm(
    values: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    residual: torch.Tensor | None = None,
    one_plus: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalise `values` + `residual` [..., columns] by the root of its mean square, times `weight` [columns].

    Returns the normalised values and the sum, which is the new residual (`values` itself without a residual).
    `one_plus` multiplies with 1 + weight, as Gemma does. One program a row; arithmetic is in float32.
    Source: Zhang and Sennrich 2019, arXiv:1910.07467.
    """
    values = values.contiguous()
    columns = values.shape[-1]
    normed = torch.empty_like(values)
    total = values if residual is None else torch.empty_like(values)
    added = values if residual is None else residual.contiguous()
    block = triton.next_power_of_2(columns)
    _rms_norm[(values.numel() // columns,)](
        values, added, weight, normed, total, columns, eps,
        ADD=residual is not None, ONE_PLUS=one_plus, BLOCK=block, num_warps=min(16, max(1, block // 256)),
    )  # fmt: skip
    return normed, total
