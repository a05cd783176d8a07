"""Families: in what the layers of an architecture differ from Llama's, as far as its config does not say so."""

from dataclasses import dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Family:
    """What must be known to count a model's weights.

    `gated` feed-forward layers have three matrices, others two. `biases` names what adds one: the projections
    "qkv", "out" and "ffn", and the "head". A layer has `norms` norms; a `layer_norm` has a bias beside its weight.
    `query_norms` are those of queries and keys: none, one the size of a "head", or one for "all" heads.
    `positions` are learned rows of the embedding for places in the text, `placed` says whether there are any,
    and `shared_gate` whether shared experts are weighted by a row of their own.
    """

    gated: bool = True
    biases: tuple[str, ...] = ()
    norms: int = 2
    layer_norm: bool = False
    query_norms: Literal["none", "head", "all"] = "none"
    placed: bool = False
    positions: int = 0
    shared_gate: bool = False


LLAMA = Family()
OWN_KERNELS = ("llama", "mistral", "qwen2", "qwen3")
"""Architectures whose layers the native step and the fused kernels know."""
WITH_BIASES = Family(gated=False, biases=("qkv", "out", "ffn"), layer_norm=True)
NORMED = Family(query_norms="head")
EAGER_ONLY = (
    "bloom", "cpmant", "deepseek_v4", "gpt_neo", "gpt_neox_japanese", "hy_v4", "inkling2_loop_text", "inkling2_text",
    "mimo_v2_flash", "mpt", "openai-gpt", "xglm",
)  # fmt: skip
"""Families for which transformers has neither SDPA nor FlexAttention; a test asks its classes."""
WITHOUT_SDPA = (*EAGER_ONLY, "flint", "gemma2", "gpt_oss", "granite_swa", "granitemoe_swa", "vaultgemma")
WITHOUT_FLEX = (*EAGER_ONLY, "falcon", "gpt2", "gpt_bigcode", "olmoe", "persimmon", "stablelm")
FAMILIES: dict[str, Family] = {
    "qwen2": Family(biases=("qkv",)),
    "qwen2_moe": Family(biases=("qkv",), shared_gate=True),
    "qwen3": NORMED,
    "qwen3_moe": NORMED,
    "gemma2": Family(norms=4),
    "gemma3": Family(norms=4, query_norms="head"),
    "gemma3_text": Family(norms=4, query_norms="head"),
    "olmo2": Family(query_norms="all"),
    "olmoe": Family(query_norms="all"),
    "stablelm": Family(layer_norm=True),
    "gpt2": replace(WITH_BIASES, placed=True),
    "opt": replace(WITH_BIASES, placed=True),
    "gpt_neox": WITH_BIASES,
    "starcoder2": WITH_BIASES,
    "phi": replace(WITH_BIASES, biases=("qkv", "out", "ffn", "head"), norms=1),
}
"""Those that are not laid out as Llama; each is counted against transformers' own modules by a test."""
OFFSET = {"opt": 2}
"""Rows of the position embedding that stand for no position."""


def family(kind: str, config: dict[str, Any], context: int | None) -> Family:
    """The family of a model type, with what its config switches on or off itself."""
    found = FAMILIES.get(kind, LLAMA)
    biases = found.biases
    if kind not in FAMILIES:
        biases += ("qkv", "out") if config.get("attention_bias") else ()
        biases += ("ffn",) if config.get("mlp_bias") else ()
    rows = (context or 0) + OFFSET.get(kind, 0) if found.placed else 0
    return replace(found, biases=biases, positions=rows)
