"""A lane reads a given text through its own stepper, as the decode loop does, and keeps all logits."""

from functools import cache
from pathlib import Path

import torch

from engine.backends import Emit
from engine.decode.modules import ModuleSession
from engine.decode.prompts import Batch
from engine.decode.sampling import Sampling
from engine.measure.machine import machine
from engine.measure.quality import Quality, compare
from engine.plan import Plan
from engine.spec import Lane, Workload, plan_for
from tests.engine.contract import Case

TEXT = (Path(__file__).parent / "texts" / "alice.txt").read_text("utf-8")
"""The opening of Alice's Adventures in Wonderland by Lewis Carroll, 1865: in the public domain."""
MODEL = "smollm2-135m"
CHUNK = 32


class Reader(ModuleSession):
    """Reads its prompt token by token, in chunks, through the cache that the plan asks for."""

    def turn(self, plan: Plan, batch: Batch, sampling: Sampling, emit: Emit) -> None:
        ids = torch.tensor(batch.prompts)
        stepper = self.stepper = self._stepper(plan, batch)
        with torch.inference_mode():
            first = [stepper.prefill(ids[:, :1])]
            rest = [stepper.step(part) for part in ids[:, 1:].split(CHUNK, dim=1)]
        self.logits = torch.cat([*first, *rest], dim=1)[0].float()
        self.ids = ids[0]


def read(opts: dict) -> Reader:
    """A lane that has read the text. What was asked for must have run."""
    plan = plan_for(Lane(opts=opts), MODEL, machine())
    session, workload = Reader(), Workload(prompts=(TEXT,), max_new_tokens=1, chat=False)
    session.prepare(plan, workload, lambda event: None)
    assert plan.unmet(session.effective()) == []
    return session


@cache
def reference() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and token ids of the plain loop in float32."""
    plain = read({"precision": {"dtype": "float32"}})
    return plain.logits, plain.ids


def quality(case: Case) -> Quality:
    """How far an optimization is from the plain loop on the same text."""
    logits, ids = reference()
    return compare(read(dict([case])).logits, logits, ids)
