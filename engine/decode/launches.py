"""What one decode step launches: kernels on a GPU, operators on a processor, counted by torch's profiler."""

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from textwrap import shorten
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from engine.decode.attention import found

TOP = 12
IDLE = {
    "alias", "as_strided", "detach", "diagonal", "empty", "empty_like", "empty_strided", "expand", "lift_fresh",
    "new_empty", "permute", "resize_", "select", "set_", "slice", "split", "split_with_sizes", "squeeze", "t",
    "transpose", "unbind", "unfold", "unsqueeze", "view", "_reshape_alias", "_unsafe_view",
}  # fmt: skip
"""Operators that compute nothing: they look at memory in another way, or reserve it."""
COMPILED = "Torch-Compiled Region"
"""How torch.compile names each of its graphs to the profiler when it runs."""
CALL = re.compile(r"cu(da)?(Launch(Cooperative)?Kernel|GraphLaunch|Memcpy|Memset)")
"""Calls of the driver by which the host starts work on the GPU."""


def launches(step: Callable[[], Any], device: torch.device) -> dict[str, Any]:
    """Run `step` once and count what it launches.

    `unit` is "kernels" (CUDA) or "operators" (CPU; views are not counted, and a compiled loop is one), `total`
    their number, `attention` the fused attention operator among them, `calls` how often the host started work on
    the device (a replayed graph is one call), `pieces` how many compiled graphs the step consists of, `busy_ms` the
    time in which kernels ran (CUDA only), `top` the most frequent ones with `name`, `count` and `share` of the
    step's time. The profiler slows the host down, so of times measured there only shares are kept.
    """
    cuda = device.type == "cuda"
    kinds = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if cuda else [ProfilerActivity.CPU]
    if cuda:
        torch.cuda.synchronize(device)
    with profile(activities=kinds) as profiler:
        step()
        if cuda:
            torch.cuda.synchronize(device)
    events = profiler.events() or []
    work = [(_short(event.name), event.time_range.elapsed_us()) for event in (_kernels if cuda else _operators)(events)]
    calls = sum(bool(CALL.match(event.name)) for event in events) if cuda else len(work)
    return {
        "unit": "kernels" if cuda else "operators",
        "total": len(work),
        "calls": calls,
        "busy_ms": sum(microseconds for _, microseconds in work) / 1000 if cuda else None,
        "attention": found(event.name for event in events),
        "pieces": len({event.name for event in events if event.name.startswith(COMPILED)}),
        "top": _top(work),
    }


def _top(work: list[tuple[str, float]]) -> list[dict[str, Any]]:
    """The names that matter by count or by time, most frequent first."""
    counts, times = Counter(name for name, _ in work), Counter()
    for name, microseconds in work:
        times[name] += microseconds
    whole = sum(times.values()) or 1.0
    weight = {name: count / len(work) + times[name] / whole for name, count in counts.items()}
    chosen = sorted(sorted(counts, key=weight.__getitem__, reverse=True)[:TOP], key=lambda name: -counts[name])
    return [{"name": name, "count": counts[name], "share": round(times[name] / whole, 4)} for name in chosen]


def _kernels(events: Iterable[Any]) -> list[Any]:
    return [e for e in events if e.device_type == DeviceType.CUDA and not getattr(e, "is_user_annotation", False)]


def _operators(events: Iterable[Any]) -> Iterator[Any]:
    """The outermost operators that work; those that only call others are looked into."""
    return (event for event in events if event.cpu_parent is None for event in _working(event))


def _working(event: Any) -> Iterator[Any]:
    family, _, name = event.name.rpartition("::")
    if "cpp_" in name or (family and name not in IDLE and not _composite(family, name)):
        yield event
    else:
        for child in event.cpu_children:
            yield from _working(child)


@functools.cache
def _composite(family: str, name: str) -> bool:
    """Whether the dispatcher knows the operator only as a composition of others."""
    packet = getattr(getattr(torch.ops, family, None), name, None)
    every = [getattr(packet, overload).name() for overload in packet.overloads()] if packet else []
    made = [overload for overload in every if torch._C._dispatch_has_kernel(overload)]
    known = torch._C._dispatch_has_kernel_for_dispatch_key
    return bool(made) and all(known(overload, "CompositeImplicitAutograd") for overload in made)


def _short(name: str) -> str:
    """The name without namespaces, types and numbers: "aten::mul" is mul, "triton_poi_fused_add_3" fused add."""
    if fused := re.match(r"(?:graph_\d+_)?(?:cpp|triton_[a-z]+)_fused_?(.*?)_?\d*$", name):
        parts = dict.fromkeys(part for part in fused[1].split("_") if part)
        return shorten(f"fused {' '.join(parts)}", 60, placeholder=" …")
    bare = name.removeprefix("void ").replace("(anonymous namespace)::", "")
    base = re.split(r"[<(]", bare)[0].strip().rpartition("::")[2]
    functors = [before or after for before, after in re.findall(r"(\w+?)Functor\b|CUDAFunctor_(\w+)", bare)]
    return shorten(f"{base} {functors[-1]}" if functors else base, 60, placeholder=" …")
