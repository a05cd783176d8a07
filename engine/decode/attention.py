"""Attention: which of torch's fused operators a plan allows, and which one really ran."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.integrations import sdpa_attention

from engine.plan import Plan

BACKENDS = {
    "math": SDPBackend.MATH,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
}
MARKS = {"_flash_attention": "flash", "_efficient_attention": "efficient", "_cudnn_attention": "cudnn",
         "_attention_math": "math", "_safe_softmax": "math", "fmha_cutlass": "efficient",
         "flash_fwd": "flash"}  # fmt: skip
"""Parts of the names of operators, of the loops that a compiled step makes of math's, and of the kernels that a
replayed graph runs without any operator."""


def allowed(plan: Plan) -> AbstractContextManager:
    """A context in which torch may use only the fused operator that the plan names; it fails where it cannot."""
    if not plan.sdpa:
        return nullcontext()
    return _repeating() if plan.sdpa == "efficient" else sdpa_kernel(BACKENDS[plan.sdpa])


@contextmanager
def _repeating() -> Iterator[None]:
    """torch's memory-efficient kernel knows no heads that share keys, so these are repeated before it."""
    usual = sdpa_attention.use_gqa_in_sdpa
    sdpa_attention.use_gqa_in_sdpa = lambda *_: False
    try:
        with sdpa_kernel(BACKENDS["efficient"]):
            yield
    finally:
        sdpa_attention.use_gqa_in_sdpa = usual


def found(operators: Iterable[str]) -> str | None:
    """Which fused operator is among the names that a profiler saw; None where none is."""
    names = " ".join(operators)
    return next((kind for mark, kind in MARKS.items() if mark in names), None)
