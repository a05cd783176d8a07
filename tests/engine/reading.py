"""A lane reads a page of English through its own cache, and its predictions are compared with the plain loop's."""

from functools import cache

import torch

from engine.decode.modules import ModuleSession
from engine.measure.machine import machine
from engine.measure.quality import Comparison, Quality
from engine.measure.texts import TEXT
from engine.spec import Lane, Workload, plan_for
from tests.engine.contract import Case, full

PAGE = "\n\n".join(TEXT.split("\n\n")[:5])
"""As much as the losses are stated for."""
MODEL = "smollm2-135m"


def compared(logits: torch.Tensor, reference: torch.Tensor, following: torch.Tensor) -> Quality:
    """The figures of one piece: logits [positions, vocabulary] of both, and the tokens that really came."""
    comparison = Comparison()
    comparison.add(logits, reference, following)
    return comparison.quality()


def read(opts: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """A lane's logits over the page, and the tokens that they predict. What was asked for must have run."""
    plan = plan_for(full(Lane(opts=opts)), MODEL, machine())
    session = ModuleSession()
    session.prepare(plan, Workload(prompts=("x",), max_new_tokens=1, chat=False), lambda event: None)
    assert plan.unmet(session.effective()) == []
    ids = session.tokenizer(PAGE)["input_ids"]
    return torch.cat(list(session.read(plan, ids[:1], ids[1:]))).cpu(), torch.tensor(ids[1:])


@cache
def reference() -> tuple[torch.Tensor, torch.Tensor]:
    """What the plain loop in float32 predicts."""
    return read({})


def quality(case: Case) -> Quality:
    """How far an optimization is from the plain loop on the same text."""
    logits, following = reference()
    return compared(read(dict([case]))[0], logits, following)
