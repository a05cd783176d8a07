"""What a lossy optimization costs in quality, for the benchmark's table."""

from engine.registry import optimizations
from tests.engine.contract import Case
from tests.engine.reading import quality


def kl_of(case: Case) -> str:
    """Mean KL divergence in nats and top-1 agreement against float32, over the bundled text."""
    if optimizations()[case[0]].lossless:
        return "lossless"
    found = quality(case)
    return f"{found.kl_mean:.4f}, {found.top1:.1%}"
