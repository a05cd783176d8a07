"""Plans as the loading of models reads them."""

from typing import Any

from engine.plan import Plan


def planned(dtype: str = "float32", attention: str = "sdpa", quantization: dict[str, Any] | None = None) -> Plan:
    """A plan for the CPU."""
    return Plan("transformers", "m", dtype=dtype, attention=attention, quantization=quantization)
