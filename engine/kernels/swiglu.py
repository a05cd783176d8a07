"""The gated activation of a feed-forward layer in one Triton kernel."""

import torch
import triton
import triton.language as tl

ACTIVATIONS = ("silu", "gelu_tanh")
BLOCK = 1024
SQRT_2_OVER_PI = 0.7978845608028654


@triton.jit
def _gated(gate, up, out, columns, gate_row, up_row, GELU: tl.constexpr, SCALE: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < columns
    g = tl.load(gate + row * gate_row + place, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + row * up_row + place, mask=inside, other=0.0).to(tl.float32)
    # both are g times a logistic function: (1 + tanh(z)) / 2 is that of 2 z
    z = 2.0 * SCALE * (g + 0.044715 * g * g * g) if GELU else g
    tl.store(out + row * columns + place, (g * tl.sigmoid(z) * u).to(out.dtype.element_ty), mask=inside)


def swiglu(gate: torch.Tensor, up: torch.Tensor, activation: str = "silu") -> torch.Tensor:
    """activation(gate) * up, all [..., columns]; the inputs may be two halves of one tensor.

    `activation` is "silu", or "gelu_tanh" for Gemma. Arithmetic is in float32. Raises ValueError for another.
    Source: Shazeer 2020, arXiv:2002.05202.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"There is no activation {activation}: {', '.join(ACTIVATIONS)}.")
    columns = gate.shape[-1]
    gates, ups = _rows(gate), _rows(up)
    out = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    _gated[(gates.shape[0], triton.cdiv(columns, BLOCK))](
        gates, ups, out, columns, gates.stride(0), ups.stride(0),
        GELU=activation == "gelu_tanh", SCALE=SQRT_2_OVER_PI, BLOCK=BLOCK,
    )  # fmt: skip
    return out


def _rows(values: torch.Tensor) -> torch.Tensor:
    """As a matrix whose rows are dense; copies only what is laid out otherwise."""
    values = values if values.stride(-1) == 1 else values.contiguous()
    return values.reshape(-1, values.shape[-1])
