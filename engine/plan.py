"""Plan: what a backend will do for one lane, as plain data that optimizations edit."""

from dataclasses import asdict, dataclass, field
from typing import Any

LEASE = ("backend", "model", "device", "dtype", "attention", "quantization", "compile", "threads")


@dataclass
class Plan:
    """The settled configuration of one lane: printable, comparable, testable without torch.

    The fields of `LEASE` decide what a worker has loaded, so two plans that agree in them can use the same
    warm worker.
    """

    backend: str
    model: str
    device: str = "cpu"
    dtype: str = "float32"
    attention: str = "sdpa"
    quantization: dict[str, Any] | None = None
    cache: str = "dynamic"
    speculation: dict[str, Any] | None = None
    batch: int = 1
    compile: str | None = None
    threads: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def lease(self) -> tuple:
        """The key under which a worker with this plan's model is kept warm."""
        return tuple(repr(getattr(self, name)) for name in LEASE)

    def unmet(self, found: dict[str, Any]) -> list[str]:
        """Where `found`, read back from what is loaded, is not what was planned: a sentence each."""
        asked = {
            "dtype": self.dtype,
            "attention": self.attention,
            "quantization": (self.quantization or {}).get("kind"),
            "compiled": bool(self.compile),
            "threads": self.threads or found.get("threads"),
        }
        ran = {**found, "quantization": (found.get("quantization") or {}).get("kind")}
        return [
            f"Asked for {name} {wanted}, but {ran[name]} ran."
            for name, wanted in asked.items()
            if name in found and ran[name] != wanted
        ]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
