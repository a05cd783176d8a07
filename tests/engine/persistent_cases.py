"""The persistent step against the modules in float64; a program, so that Triton's interpreter can be chosen on a CPU.

In the interpreter, whose programs run one after another, the whole step has a grid of one.
"""

import sys
from copy import deepcopy

import torch
import triton
import triton.language as tl
from transformers import DynamicCache

from engine.bench.persistent import Race, Staying
from engine.decode.gpu import Steps
from engine.decode.gpu_native import GpuNative
from engine.decode.gpu_pass import Weights
from engine.decode.sampling import Sampling
from engine.decode.stepper import cache_argument
from engine.kernels import decode_attention
from engine.kernels.persistent import _asked, _product
from engine.plan import Plan
from engine.refusal import Refusal
from tests.engine.tiny import prompts, tiny

DEVICE = sys.argv[1] if len(sys.argv) > 1 else "cpu"
GREEDY = Sampling(frozenset(), True)
COLUMNS, STEPS, PROGRAMS = 200, 2, 5


def close(name: str, found: torch.Tensor, wanted: torch.Tensor) -> None:
    worst = float((found.double() - wanted).abs().max())
    assert worst < 2e-4, f"{name}: off by {worst}"


def model_of(kind: str) -> torch.nn.Module:
    """A tiny model whose norms are not all alike."""
    model = tiny(kind)
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.normal_(1.0, 0.3)
    return model


def staying(model: torch.nn.Module, ids: torch.Tensor) -> Staying:
    """The step of a model behind ids [1, tokens], whose cache the modules have filled."""
    filled = DynamicCache()
    model(ids, use_cache=True, **{cache_argument(type(model)): filled})
    steps = Steps(Weights(model, "plain", "plain"), 1, COLUMNS + 100)
    for layer, kept in zip(steps.context.cache, filled.layers, strict=True):
        layer[0, :, :, : ids.shape[1]], layer[1, :, :, : ids.shape[1]] = kept.keys, kept.values
    return Staying(model, steps, GREEDY)


def step_agrees(kind: str) -> None:
    """Tokens and logits behind so many columns that attention has several parts, and nothing is left behind."""
    model = model_of(kind)
    wide = deepcopy(model).double()
    ids = torch.randint(1, 250, (1, COLUMNS + 1), generator=torch.Generator().manual_seed(len(kind)))
    step = staying(model.to(DEVICE), ids[:, :COLUMNS].to(DEVICE))
    assert step.kernel.parts.splits > 2
    step.start(ids[:, -1:].to(DEVICE), COLUMNS)
    for number in range(STEPS):
        step.body()
        wanted = wide(ids).logits[:, -1]
        ids = torch.cat((ids, wanted.argmax(-1)[:, None]), -1)
        assert step.box.read(number) == ids[0, -1:].tolist(), f"{kind}: another token at step {number}"
        close(f"{kind}, step {number}", step.kernel.logits.cpu(), wanted)
        step.kernel.check()
        assert not step.kernel.state.any(), "a barrier that is not ready again lets everybody pass"


@triton.jit
def _alone(
    x, gain, weight, bias, residual, out, ROWS: tl.constexpr, DEPTH: tl.constexpr, PLAIN: tl.constexpr,
    BN: tl.constexpr, BK: tl.constexpr, PROGRAMS: tl.constexpr,
):  # fmt: skip
    w, other = _asked(weight, 0, ROWS, DEPTH, not PLAIN, BN, BK, PROGRAMS)
    _product(
        w, other, x, gain, weight, bias, residual, out, 1e-6, ROWS, DEPTH, True, not PLAIN, PLAIN, PLAIN, BN, BK,
        PROGRAMS,
    )  # fmt: skip


def products_are_dealt_out(rows: int, depth: int, plain: bool) -> None:
    """Several programs with several turns each, of which the last ones are not whole."""
    shapes = ((depth,), (depth,), (rows if plain else 2 * rows, depth), (rows,), (rows,))
    x, gain, weight, bias, residual = (torch.randn(shape, device=DEVICE) for shape in shapes)
    out = torch.full((rows,), float("nan"), device=DEVICE)
    sizes = {"BN": 2, "BK": triton.next_power_of_2(depth), "PROGRAMS": PROGRAMS}
    _alone[(PROGRAMS,)](x, gain, weight, bias, residual, out, ROWS=rows, DEPTH=depth, PLAIN=plain, **sizes)
    wide = x.double()
    found = weight.double() @ (wide / (wide.pow(2).mean() + 1e-6).sqrt() * gain.double())
    gate, up = found.chunk(2) if not plain else (found, found)
    close(f"{rows} rows", out, gate + bias + residual if plain else torch.nn.functional.silu(gate) * up)


def waiting_in_vain_ends() -> None:
    """One that does not come: the others give up, all of them end, and the caller says so; then it works again."""
    step = staying(tiny("llama").to(DEVICE), torch.ones(1, 4, dtype=torch.long, device=DEVICE))
    step.start(torch.ones(1, 1, dtype=torch.long, device=DEVICE), 4)
    step.kernel.state[0] = -1_000_000
    step.body()
    step.box.read(0)
    try:
        step.kernel.check()
    except Refusal as refusal:
        assert "have not met" in refusal.why
    else:
        raise AssertionError("nobody was told")
    step.body()
    step.box.read(1)
    step.kernel.check()


def race_is_fair() -> None:
    """What the bench compares writes the same text."""
    model = tiny("llama", num_hidden_layers=1).to(DEVICE)
    native = GpuNative(model, Plan("transformers", "m", native=True))
    race = Race(native, model, torch.tensor(prompts(5), device=DEVICE), 1)
    assert all(race.turn(name) > 0 for name in race.runners) and race.same() == 1
    assert race.off() < 1e-4


@torch.inference_mode()
def main() -> None:
    torch.manual_seed(0)
    decode_attention.LEAST = 1  # parts of 128 columns
    for kind in ("qwen2", "qwen3"):
        step_agrees(kind)
    products_are_dealt_out(37, 96, True)
    products_are_dealt_out(24, 64, False)
    waiting_in_vain_ends()
    race_is_fair()
    print("every meeting agrees")


if __name__ == "__main__":
    main()
