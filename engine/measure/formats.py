"""Formats: how many bytes one number takes in a lane, its share of scales included, and what it is multiplied in."""

import math
from dataclasses import dataclass, replace
from typing import Any

from engine.models.architecture import Architecture
from engine.models.parameters import parameters
from engine.models.resolve import RANDOM
from engine.plan import Plan

PLAIN = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
BLOCK = 64
"""Weights that share a scale in bitsandbytes' 4-bit formats."""
SUPER = 256
"""Scales that share one of their own, under double quantization."""
PACKED = {"int8": 1.0, "int4": 0.5 + 2 / 32}
"""Bytes of a weight of a processor's native step: int8 has a scale a row, int4 one of 16 bits a group of 32."""
GROUPS = (128, 64, 32)
"""A GPU's native step has 4-bit groups as large as the width allows, with a scale in the model's own format."""
TILE = 1024
"""Inputs of a row that torchao's `tile_packed_to_4d` keeps together."""
INTEGER = {"int8": "int8", "int8-dynamic": "int8", "fp8-dynamic": "float8"}
"""Kinds that round the activations as well, and multiply narrow numbers with narrow ones."""


@dataclass(frozen=True)
class Formats:
    """Bytes of one number: a `weight` of a linear layer, a `plain` one elsewhere (head, norms, logits), a kept `kv`.

    `arithmetic` is the number format of the products.
    """

    weight: float
    plain: float
    kv: float
    arithmetic: str


def formats(plan: Plan, shape: Architecture) -> Formats:
    """As the plan asks. Unknown kinds of quantization count as plain numbers."""
    plain = plain_bytes(plan, shape)
    kind = (plan.quantization or {}).get("kind")
    packed = _packed(plan, plain, shape)
    wide = plan.native and plan.device == "cpu"  # keys, values and sums of 32 bits, whole numbers by whole ones
    return Formats(
        weight=packed or weight_bytes(plan.quantization or {}, plain, shape) * _filled(plan, shape),
        plain=1.0 if packed else plain,
        kv=PLAIN["float32"] if wide else _kv_bytes(plan.kv_bits, plain, shape),
        arithmetic="int8" if packed and wide else INTEGER.get(kind, plan.dtype),
    )


def plain_bytes(plan: Plan, shape: Architecture) -> float:
    """Bytes of a number that is not packed. A processor's native step keeps in 16 bits what was published in them.

    Random weights were never published, and what a GGUF file is widened to has more digits.
    """
    published = shape.numbers == "bfloat16" and not shape.quantized and not plan.model.startswith(RANDOM)
    return PLAIN["bfloat16" if plan.native and plan.device == "cpu" and published else plan.dtype]


def _packed(plan: Plan, plain: float, shape: Architecture) -> float | None:
    """Bytes of a weight that the native step keeps in whole numbers; None where it keeps it plain."""
    kind = (plan.packed or {}).get("kind")
    if plan.device == "cuda" and kind == "int4":
        return 0.5 + plain / next((group for group in GROUPS if shape.hidden % group == 0), GROUPS[-1])
    return PACKED.get(kind) if kind else None


def found(plan: Plan, shape: Architecture, effective: dict[str, Any]) -> Formats:
    """As they really lay in memory: the plan's, put right by what was read back from the modules."""
    asked = formats(plan, shape)
    dtype = effective.get("dtype")
    if dtype in PLAIN and dtype != plan.dtype:
        asked = formats(replace(plan, dtype=dtype), shape)
    if (stored := effective.get("stored")) in PLAIN:
        asked = replace(asked, weight=PLAIN[stored], plain=PLAIN[stored])
    came = effective.get("quantization") or {}
    if plan.quantization or plan.packed or not came or came["kind"].startswith("none"):
        return asked
    return replace(asked, weight=_checkpoint_bytes(came["kind"], asked.plain))


def weight_bytes(quantization: dict[str, Any], plain: float, shape: Architecture) -> float:
    """Bytes of one weight of a linear layer with its share of scales and zero points."""
    rowwise = 1 / shape.hidden if shape.hidden else 0.0
    match quantization.get("kind"):
        case None:
            return plain
        case "nf4" | "fp4":
            scale = 1 / BLOCK + 4 / (BLOCK * SUPER) if quantization.get("double") else 4 / BLOCK
            return 0.5 + scale
        case "int8":
            return 1 + 4 * rowwise
        case "int4-weight-only":
            return 0.5 + 2 * 2 / quantization.get("group", BLOCK)
        case _:
            return 1 + plain * rowwise


def _filled(plan: Plan, shape: Architecture) -> float:
    """What torchao's tiles of 4 bits on a GPU take over the weights in them: rows are filled up to whole TILEs."""
    tiled = plan.device == "cuda" and (plan.quantization or {}).get("kind") == "int4-weight-only"
    if not tiled or not shape.hidden or not shape.feed_forward:
        return 1.0
    down = shape.hidden * shape.feed_forward
    others = parameters(shape).linear / max(1, shape.layers) - down
    sizes = ((others, shape.hidden), (down, shape.feed_forward))
    return sum(count * -(-inputs // TILE) * TILE / inputs for count, inputs in sizes) / (others + down)


def _checkpoint_bytes(kind: str, plain: float) -> float:
    """Of a checkpoint that came quantized, such as "gptq 4-bit", "awq 4-bit" or "fp8"."""
    bits = next((int(word.removesuffix("-bit")) for word in kind.split() if word.endswith("-bit")), None)
    if bits is None:
        return 1.0 if "8" in kind else plain
    return bits / 8 + (0.0 if bits >= 8 else 2 * 2 / 128)


def _kv_bytes(bits: dict[str, Any] | None, plain: float, shape: Architecture) -> float:
    """Mean over keys and values; a group's scale and least value take 16 bits each. The newest group is not counted."""
    if not bits:
        return plain
    group = bits["group"]
    sizes = ((bits["keys"], group), (bits["values"], math.gcd(group, shape.head_dim)))
    return sum(plain if number == 16 else number / 8 + 4 / size for number, size in sizes) / 2
