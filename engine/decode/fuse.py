"""Rewrites of a loaded model: projections of one input merged into one product, and layers of fused kernels."""

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from engine.models.families import OWN_KERNELS
from engine.refusal import Refusal

GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Projections that read the same input, as transformers' modules name them."""


class Merged(nn.Module):
    """One linear layer in place of several that read the same input.

    Whichever share is asked first computes all of them; the others take theirs when they are asked for the
    same input. Nothing is kept once every share is taken.
    """

    def __init__(self, parts: list[nn.Linear]):
        super().__init__()
        self.sizes = [part.out_features for part in parts]
        self.product = _joined(parts)
        self.source: torch.Tensor | None = None
        self.kept: dict[int, torch.Tensor] = {}

    def take(self, place: int, source: torch.Tensor) -> torch.Tensor:
        """What the layer at `place` would have returned for `source` [..., inputs]: [..., its outputs]."""
        if self.source is not source or place not in self.kept:
            self.source = source
            self.kept = dict(enumerate(self.product(source).split(self.sizes, -1)))
        share = self.kept.pop(place)
        if not self.kept:
            self.source = None
        return share


class Share(nn.Module):
    """Stands where a merged layer stood; the merged one is a module of its first share only."""

    def __init__(self, merged: Merged, place: int):
        super().__init__()
        self.place = place
        if place == 0:
            self.merged = merged
        else:
            object.__setattr__(self, "merged", merged)

    def forward(self, source: torch.Tensor) -> torch.Tensor:
        return self.merged.take(self.place, source)


def merge_projections(model: Any) -> dict[str, int]:
    """Merge query, key and value, and gate and up projections, in place; how many merged layers there are now.

    The weights are moved, not kept twice: at most one group of projections exists twice at any moment.
    Raises Refusal where a projection is quantized, or where the architecture has nothing to merge.
    """
    found = list(_mergeable(model))
    for owner, names in found:
        odd = next((part for part in _parts(owner, names) if type(part) is not nn.Linear), None)
        if odd is not None:
            raise Refusal(
                f"Merged projections join plain weights, but these are {type(odd).__name__} layers.",
                "Switch weight quantization off, or merged projections.",
            )
    for owner, names in found:
        _merge(owner, names)
    count = merged(model)
    if not count:
        raise Refusal(
            f"{type(model).__name__} has no projections left to merge: they are one product already.",
            "Switch merged projections off for this model.",
        )
    return {"merged": count}


def merged(model: Any) -> int:
    """How many merged layers the model has, counted in its modules."""
    return sum(isinstance(module, Merged) for module in model.modules())


def fuse_kernels(model: Any) -> dict[str, int]:
    """Put layers of Triton kernels in place of the decoder layers; how many there are now.

    The model then needs a static cache without sliding windows. Raises Refusal for what the kernels do not know.
    """
    _check_kernels(model)
    from engine.decode.layers import KernelLayer, KernelNorm

    trunk = model.model
    if kernels(model):
        return {"kernels": kernels(model)}
    module = sys.modules[type(trunk.layers[0]).__module__]
    name = model.config._attn_implementation
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(name, module.eager_attention_forward)
    trunk.layers = nn.ModuleList(KernelLayer(layer, attend) for layer in trunk.layers)
    trunk.norm = KernelNorm(trunk.norm)
    return {"kernels": kernels(model)}


def kernels(model: Any) -> int:
    """How many decoder layers run on fused kernels, counted in the modules."""
    return sum(type(module).__name__ == "KernelLayer" for module in model.modules())


def _check_kernels(model: Any) -> None:
    config = model.config
    if config.model_type not in OWN_KERNELS:
        raise Refusal(
            f"The fused kernels know the layers of {', '.join(OWN_KERNELS)}, not of {config.model_type}.",
            "Switch fused kernels off for this model.",
        )
    if config.hidden_act != "silu":
        raise Refusal(
            f"The fused kernels know the silu activation only, and this model has {config.hidden_act}.",
            "Switch fused kernels off for this model.",
        )
    if model.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise Refusal("The fused kernels are written in Triton, which needs an NVIDIA GPU.", "Switch them off.")
    if not find_spec("triton"):
        raise Refusal("The fused kernels need the triton package, which is not installed.", "pip install triton.")


def _mergeable(model: Any) -> Iterator[tuple[nn.Module, tuple[str, ...]]]:
    for owner in list(model.modules()):
        for names in GROUPS:
            parts = _parts(owner, names)
            same = len({getattr(part, "in_features", None) for part in parts}) == 1
            if len(parts) == len(names) and same and not isinstance(parts[0], Share):
                yield owner, names


def _parts(owner: nn.Module, names: tuple[str, ...]) -> list[nn.Module]:
    found = [getattr(owner, name, None) for name in names]
    return [part for part in found if isinstance(part, nn.Module)]


def _merge(owner: nn.Module, names: tuple[str, ...]) -> None:
    whole = Merged(_parts(owner, names))
    for place, name in enumerate(names):
        setattr(owner, name, Share(whole, place))


def _joined(parts: list[nn.Linear]) -> nn.Linear:
    """One layer with the rows of all; a missing bias is zero."""
    first = parts[0].weight
    like = {"device": first.device, "dtype": first.dtype}
    biased = any(part.bias is not None for part in parts)
    with torch.no_grad():
        rows = sum(part.out_features for part in parts)
        product = nn.Linear(parts[0].in_features, rows, bias=biased, device="meta", dtype=first.dtype)
        product.weight = nn.Parameter(torch.cat([part.weight for part in parts]), requires_grad=first.requires_grad)
        if biased:
            biases = [torch.zeros(p.out_features, **like) if p.bias is None else p.bias for p in parts]
            product.bias = nn.Parameter(torch.cat(biases), requires_grad=first.requires_grad)
    return product
