"""Models on fused kernels against the same models as they come; a program, so that the interpreter can be chosen."""

import sys

import torch

from engine.decode.fuse import fuse_kernels, merge_projections
from engine.decode.graphs import graph_decode, graph_step
from engine.decode.loop import decode
from engine.decode.prompts import Batch
from engine.decode.sampling import Sampling
from engine.decode.stepper import Growing, Preallocated, keep_all
from engine.refusal import Refusal
from tests.engine.said import Said
from tests.engine.tiny import prompts, tiny

DEVICE = sys.argv[1] if len(sys.argv) > 1 else "cpu"
GREEDY = Sampling(frozenset({0}), True)


def tokens(model, stepper, work: Batch) -> dict[int, list[int]]:
    said = Said()
    decode(stepper, work, GREEDY, said)
    return said.tokens


@torch.inference_mode()
def agrees(kind: str, merge: bool, *widths: int) -> None:
    model = tiny(kind).to(DEVICE)
    work = Batch(tuple(range(len(widths))), prompts(*widths), (8,) * len(widths))
    wanted = tokens(model, Growing(model, work.pad), work)
    if merge:
        merge_projections(model)
    assert fuse_kernels(model) == fuse_kernels(model) == {"kernels": 2}
    cache = keep_all(model.config, 64)
    for _ in range(2):
        found = tokens(model, Preallocated(model, work.pad, cache, None), work)
        assert found == wanted, f"{kind}: {found} instead of {wanted}"
    said = Said()
    graph_decode(graph_step(model, keep_all(model.config, 64), len(widths), GREEDY), work, said)
    assert said.tokens == wanted, f"{kind} in a graph: {said.tokens} instead of {wanted}"


@torch.inference_mode()
def refuses_a_growing_cache() -> None:
    model = tiny("llama").to(DEVICE)
    fuse_kernels(model)
    try:
        Growing(model, [0]).prefill(torch.ones(1, 3, dtype=torch.long, device=DEVICE))
    except Refusal as refusal:
        assert "static cache" in refusal.why
    else:
        raise AssertionError("a growing cache must be refused")


def main() -> None:
    agrees("llama", False, 6)
    agrees("llama", True, 4, 7, 2)
    agrees("mistral", True, 5)
    agrees("qwen2", False, 3, 5)
    agrees("qwen3", True, 3, 6)
    refuses_a_growing_cache()
    print("every layer agrees")


if __name__ == "__main__":
    main()
