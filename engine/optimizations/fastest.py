"""The fastest way of a decode step that loses nothing and can run here."""

from typing import ClassVar

from engine.models.drafts import TRAINED
from engine.optimizations import Optimization, Way
from engine.plan import Plan

GUESSING = {"model": TRAINED, "guesses": 1}
"""On five kinds of text one guess gained 1.04 to 1.55 times; three gained 2.2 on a poem and lost on a summary (0.9)."""


class Fastest(Optimization):
    """Let Pitlane choose the fastest step that loses nothing and runs on this machine, and say which it is.

    The rungs are tried from the top: on a processor the native step, which is the whole pass as one call, with a draft
    that was trained for the model; the native step alone; on an NVIDIA GPU then a CUDA graph of fused kernels, and a
    CUDA graph alone; then merged projections; and the plain loop where nothing else fits the model, the machine and
    the lane. Nothing is measured beforehand, and a step that takes half a minute to compile is not
    among them: switch that on yourself. Source: this project's own ladder, `python -m tests.bench ladder`.
    """

    title: ClassVar[str] = "Fastest lossless"
    group: ClassVar[str] = "fusion"
    moves: ClassVar[dict[str, str]] = {"tpot_ms": "down"}

    def ways(self, device: str) -> tuple[Way, ...]:
        """On a GPU a native step is over before a draft has guessed, so there it stays alone."""
        drafted: tuple[Way, ...] = ({"native_step": {}, "draft_model": GUESSING},) if device == "cpu" else ()
        return (
            *drafted,
            {"native_step": {}},
            {"merged_projections": {}, "fused_kernels": {}, "cuda_graph": {}},
            {"cuda_graph": {}},
            {"merged_projections": {}},
            {},
        )

    def on_transformers(self, plan: Plan) -> None:
        """What takes its place does the work."""

    def badge(self) -> str:
        return "fastest lossless"
