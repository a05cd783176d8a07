"""The forward pass of a decode step as one compiled graph."""

from typing import Any

import torch
import torch._dynamo.utils
import torch._inductor.config as inductor
from torch._dynamo.eval_frame import cached_backends

from engine.plan import Plan


def compile_step(model: Any, plan: Plan) -> Any:
    """The forward pass as one compiled graph for fixed shapes.

    On a CPU the weights are frozen into the graph and packed for its products; on CUDA the step becomes a
    CUDA graph. Freezing must be set for the whole process: as an option of one compile it has no effect
    (torch 2.13), since tracing looks at the global setting.
    """
    torch._dynamo.config.cache_size_limit = 64
    mode = None
    if plan.device == "cpu":
        autotune = plan.compile == "max-autotune"
        inductor.freezing = True
        inductor.cpp.enable_kernel_profile = True  # lets the profiler see compiled loops by name
        inductor.max_autotune = autotune
        inductor.max_autotune_gemm_backends = "CPP,ATEN" if autotune else "ATEN"
    else:
        mode = "reduce-overhead" if plan.compile == "default" else "max-autotune"
    known = set(cached_backends)
    step = torch.compile(model.forward, mode=mode, fullgraph=True, dynamic=False)
    # A step in one piece does not say what it is compiled with, but the compiler that torch made for it does. Functions
    # that are left out of compiling come with one of their own, which has no settings.
    made = (compiler for key, compiler in cached_backends.items() if key not in known)
    step.get_compiler_config = next(filter(None, (getattr(one, "get_compiler_config", None) for one in made)), None)
    return step


def compiled_as(pieces: int | None = None) -> str | None:
    """How a step ran that was to be compiled: "in one piece", "in 3 pieces" (its graph broke), None: not compiled.

    `pieces` is what a profiler saw. Without one, graphs and breaks in all of this process are what is known.
    """
    if pieces is None:
        breaks = sum(torch._dynamo.utils.counters["graph_break"].values())
        pieces = breaks + 1 if compilations() else 0
    return {0: None, 1: "in one piece"}.get(pieces, f"in {pieces} pieces")


def mode_of(step: Any) -> str | None:
    """How a compiled step looks for its kernels: "max-autotune" tries several for each product, "default" does not.

    Read from the settings that the compiler took with the step; None for what is not compiled.
    """
    ask = getattr(step, "get_compiler_config", None)
    settings = ask and ask()
    return settings and ("max-autotune" if settings["max_autotune"] else "default")


def compilations() -> int:
    """Graphs that this process has compiled so far: a turn in which it grows has recompiled."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]
