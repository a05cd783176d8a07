"""Checks before anything is timed: every rung writes the plain loop's tokens; `python -m engine.bench.checks DEVICE`.

One process loads them one after another, and prints a line of JSON for each.
"""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from engine.bench.rows import CAPTURED, FLOAT32, NATIVE, REAL
from engine.bench.texts import PROMPT, REPEAT
from engine.event import Step
from engine.measure.machine import machine
from engine.measure.quality import Comparison
from engine.measure.texts import TEXT
from engine.refusal import Refusal
from engine.spec import Lane, Workload, plan_for

RUNGS: dict[str, dict[str, Any]] = {
    "native step": NATIVE,
    "merged, fused and captured": CAPTURED,
    "native step, batch": {**NATIVE, "batching": {"size": 3}},
    "prompt lookup": {"prompt_lookup": {}},
    "merged projections": {"merged_projections": {}},
    "fused kernels": {"fused_kernels": {}},
    "CUDA graph": {"cuda_graph": {}},
    "native step, prompt lookup": {**NATIVE, "prompt_lookup": {}},
    "batch": {"batching": {"size": 3}},
    "continuous batching": {"continuous_batching": {"slots": 3}},
    "native step, continuous batching": {**NATIVE, "continuous_batching": {"slots": 2, "chunk": 32}},
}
PACKED = {f"packed {kind}": {**NATIVE, "packed_weights": {"kind": kind}} for kind in ("int8", "int4")}
WORKLOAD = Workload(prompts=(REPEAT, PROMPT, "Name three colours."), max_new_tokens=24)
READ = 160
"""Tokens of a text that a lossy rung reads."""
HELD, BROKE, ABSENT, OPEN = "PASS", "FAIL", "not here", "unfinished"


def checks(device: str, model: str = REAL) -> Iterator[dict[str, Any]]:
    """A `verdict` and a `sentence` for each rung in float32, and for the packed weights in the device's format."""
    plain = opened(device, model, FLOAT32)
    wanted, reference = _tokens(*plain), _logits(*plain)
    for name, opts in PACKED.items():
        yield _check(name, lambda opts=opts: _near(reference, *opened(device, model, opts)))
    for name, opts in RUNGS.items():
        yield _check(name, lambda opts=opts: _same(wanted, _tokens(*opened(device, model, {**FLOAT32, **opts}))))


def _check(name: str, do: Any) -> dict[str, Any]:
    began = time.perf_counter()
    try:
        verdict, sentence = do()
    except Refusal as refusal:
        verdict, sentence = ABSENT, str(refusal)
    except Exception as error:  # whatever breaks here is what the check is for
        sys.excepthook(type(error), error, error.__traceback__)
        verdict, sentence = BROKE, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return {"name": name, "verdict": verdict, "sentence": sentence, "seconds": time.perf_counter() - began}


def opened(device: str, model: str, opts: dict[str, Any]) -> tuple[Any, Any]:
    from engine.decode.modules import ModuleSession

    plan, session = plan_for(Lane(device=device, opts=opts), model, machine()), ModuleSession()
    session.load(plan, WORKLOAD, lambda event: None)
    return session, plan


def _tokens(session: Any, plan: Any) -> dict[int, list[int]]:
    """Greedy tokens of each request. Raises AssertionError where something else ran than was planned."""
    written: dict[int, list[int]] = {}

    def hear(event: Any) -> None:
        if isinstance(event, Step):
            for request, tokens in zip(event.requests, event.tokens, strict=True):
                written.setdefault(request, []).extend(tokens)

    session.run(plan, WORKLOAD, hear)
    if unmet := plan.unmet(session.effective()):
        raise AssertionError(" ".join(unmet))
    return written


def _same(wanted: dict[int, list[int]], found: dict[int, list[int]]) -> tuple[str, str]:
    count = sum(map(len, wanted.values()))
    for request, tokens in wanted.items():
        mine = found.get(request, [])
        if mine != tokens:
            place = next((i for i, (a, b) in enumerate(zip(mine, tokens, strict=False)) if a != b), len(mine))
            return BROKE, f"request {request + 1} parts from the plain loop at token {place + 1} of {len(tokens)}"
    return HELD, f"{count} greedy tokens of {len(wanted)} requests in float32 are the plain loop's"


def _logits(session: Any, plan: Any) -> Any:
    import torch

    ids = _text(session)
    return torch.cat([part.cpu() for part in session.read(plan, ids[:1], ids[1:])])


def _text(session: Any) -> list[int]:
    return session.tokenizer(TEXT)["input_ids"][:READ]


def _near(reference: Any, session: Any, plan: Any) -> tuple[str, str]:
    """Over a text, against the plain loop in float32; the bound is what the optimization states of itself."""
    import torch

    comparison = Comparison()
    comparison.add(_logits(session, plan), reference, torch.tensor(_text(session)[1:]))
    found = comparison.quality()
    opts = Lane(opts={"packed_weights": {"kind": plan.packed["kind"]}}).opts
    most, least = opts["packed_weights"].expected_loss()
    held = found.kl_mean <= most and found.top1 >= least
    said = (
        f"KL {found.kl_mean:.4f} nats (at most {most}), the same next token at {found.top1:.0%} (at least {least:.0%})"
    )
    return HELD if held else BROKE, f"{said} of {found.tokens} tokens"


if __name__ == "__main__":
    for found in checks(*sys.argv[1:]):
        print(json.dumps(found), flush=True)
