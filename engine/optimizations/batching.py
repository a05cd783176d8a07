"""Several prompts in one step."""

from typing import ClassVar

from pydantic import Field

from engine.optimizations import Optimization
from engine.plan import Plan


class Batching(Optimization):
    """Answer several prompts at once, so that each weight is read once for all of them.

    At batch 1 the processor waits for weights. A batch multiplies each weight with several tokens once it is
    there, so the total of tokens per second grows almost with the batch, until arithmetic becomes the limit.
    Each single request gets a little slower. A static batch is put together once and runs to its longest
    answer: places of those who are done stay empty, and who comes meanwhile waits outside. Shorter prompts
    are padded on the left. Continuous batching fills the empty places.
    Source: Orca, OSDI 2022, section 2.
    """

    title: ClassVar[str] = "Static batching"
    group: ClassVar[str] = "parallelism"
    shares: ClassVar[bool] = True
    moves: ClassVar[dict[str, str]] = {"output_tok_per_s": "up", "tpot_ms": "up"}
    reasons: ClassVar[dict[str, str]] = {
        "faster": "each weight is read once for the whole batch",
        "slower": "everybody waits for the longest answer of the batch, and shorter prompts are padded",
        "same": "with one request at a time there is nothing to batch",
    }

    size: int = Field(4, ge=2, le=128, title="Batch size", description="Prompts that share one step.")

    def on_transformers(self, plan: Plan) -> None:
        plan.batch = self.size

    on_generate = on_transformers

    def badge(self) -> str:
        return f"batch {self.size}"
