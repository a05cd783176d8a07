"""What a product ends with, as part of its kernel."""

import triton
import triton.language as tl


@triton.jit
def finished(
    found, up, row, place, scales, bias, residual, out, inside, ROWS: tl.constexpr, GATED: tl.constexpr,
    ADD: tl.constexpr, BIAS: tl.constexpr, BITS: tl.constexpr,
):  # fmt: skip
    """Scale, bias, gate and residual, and the sums are stored at `place`."""
    known = row < ROWS
    if BITS == 8:
        found *= tl.load(scales + row, mask=known, other=0.0)
        if GATED:
            up *= tl.load(scales + ROWS + row, mask=known, other=0.0)
    if BIAS:
        found += tl.load(bias + row, mask=known, other=0.0).to(tl.float32)
    if GATED:
        found = found * tl.sigmoid(found) * up
    if ADD:
        found += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + place, found.to(out.dtype.element_ty), mask=inside)
