"""Architecture: what a model's config says about its shape, known before a weight is loaded."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from engine.models.families import LLAMA, WITHOUT_SDPA, Family, family
from engine.models.resolve import resolve
from engine.refusal import Refusal

CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length")
NAMES = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "kv_heads": ("num_key_value_heads", "multi_query_kv_heads"),
    "feed_forward": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts"),
    "per_token": ("num_experts_per_tok", "num_experts_per_token", "moe_topk"),
    "expert_width": ("moe_intermediate_size",),
    "shared_width": ("shared_expert_intermediate_size",),
    "shared_experts": ("n_shared_experts", "num_shared_experts"),
    "dense_layers": ("first_k_dense_replace",),
}
STATES = (
    "mamba",
    "rwkv",
    "xlstm",
    "recurrent_gemma",
    "jamba",
    "bamba",
    "zamba",
    "lfm2",
    "falcon_h1",
    "granitemoehybrid",
)
"""Families that keep a running state instead of, or beside, keys and values."""
WIDENED = ("gguf",)
"""Methods of checkpoints whose weights are plain numbers as soon as they are loaded, wherever that is."""


@dataclass(frozen=True)
class Architecture:
    """The shape of a decoder-only model. `context` and `window` are in tokens, None where the config is silent.

    `window` is a sliding attention window, and `sliding` the number of layers that have it; `experts` is 0 for a
    dense model; `quantized` names the method of a checkpoint that comes quantized; `keeps_kv` is false for models
    that carry a running state instead. Of the experts, `experts_per_token` of width `expert_width` read each token,
    beside shared ones of `shared_width` together; `dense_layers` have none. `family` says how layers are built, and
    `numbers` in which format they were published, None where the config is silent. `alibi` is true for a Falcon model
    that adds a bias by distance to its mask, and so needs a cache of just the tokens seen. `repeated` says that
    transformers repeats the heads of keys and values for those of the queries before it keeps them.
    """

    model_type: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    vocabulary: int
    context: int | None
    window: int | None
    soft_cap: float | None
    experts: int
    tied: bool
    quantized: str | None
    keeps_kv: bool
    sliding: int = 0
    experts_per_token: int = 0
    expert_width: int = 0
    shared_width: int = 0
    dense_layers: int = 0
    family: Family = LLAMA
    numbers: str | None = None
    alibi: bool = False
    repeated: bool = False

    @property
    def kept_heads(self) -> int:
        """Heads of keys and values that a cache of transformers keeps."""
        return self.heads if self.repeated else self.kv_heads

    @property
    def needs_eager(self) -> bool:
        """Whether attention is written out for want of a fused one: scores are capped, or the family has no SDPA."""
        return bool(self.soft_cap) or self.model_type in WITHOUT_SDPA

    def kv_bytes_per_token(self, bytes_per_value: float) -> float:
        """Bytes of the keys and values of one token in all layers: 2 x layers x kept heads x head size x bytes."""
        return 2 * self.layers * self.kept_heads * self.head_dim * bytes_per_value if self.keeps_kv else 0.0

    @property
    def narrow(self) -> str | None:
        """The method of a checkpoint whose weights may stay quantized in memory; None where they are plain there."""
        return None if self.quantized in WIDENED else self.quantized

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of dataclasses.asdict, also after JSON."""
        built = dict(data["family"])
        return cls(**{**data, "family": Family(**{**built, "biases": tuple(built["biases"])})})


def architecture(config: dict[str, Any]) -> Architecture:
    """Read the shape off a config.json (its text part, where it has several)."""
    whole, config = config, config.get("text_config") or config
    kind = str(config.get("model_type") or whole.get("model_type") or "")
    found = {name: _first(config, keys) for name, keys in NAMES.items()}
    heads = found["heads"] or 1
    hidden = found["hidden"] or 0
    quantized = (whole.get("quantization_config") or {}).get("quant_method")
    context = _first(config, CONTEXT_KEYS)
    return Architecture(
        model_type=kind,
        layers=found["layers"] or 0,
        hidden=hidden,
        heads=heads,
        kv_heads=_kv_heads(kind, config, found["kv_heads"] or heads),
        head_dim=config.get("head_dim") or hidden // heads,
        feed_forward=found["feed_forward"] or 4 * hidden,
        vocabulary=config.get("vocab_size") or 0,
        context=context,
        window=_window(config),
        soft_cap=config.get("attn_logit_softcapping"),
        experts=found["experts"] or 0,
        tied=bool(config.get("tie_word_embeddings", True)),
        quantized=str(quantized) if quantized else None,
        keeps_kv=not any(kind.startswith(state) for state in STATES),
        sliding=_sliding(config, found["layers"] or 0),
        family=family(kind, config, context),
        numbers=config.get("dtype") or config.get("torch_dtype") or whole.get("dtype") or whole.get("torch_dtype"),
        alibi=kind == "falcon" and bool(config.get("alibi")),
        repeated=kind == "falcon" and bool(config.get("new_decoder_architecture")),
        **_mixture(config, found),
    )


def _kv_heads(kind: str, config: dict[str, Any], found: int) -> int:
    """Falcon counts them in a key that only its newer layers heed; in older ones, as in GPT BigCode, all share one."""
    if kind == "falcon" and config.get("new_decoder_architecture"):
        return config.get("num_kv_heads") or found
    return 1 if config.get("multi_query", kind in ("falcon", "gpt_bigcode")) else found


def _mixture(config: dict[str, Any], found: dict[str, int | None]) -> dict[str, int]:
    """The experts of a mixture: how many read a token, how wide they are, and which layers have none."""
    if not found["experts"]:
        return {}
    width = found["expert_width"] or found["feed_forward"] or 0
    step, layers = config.get("decoder_sparse_step") or 1, found["layers"] or 0
    sparse = [layer for layer in range(layers) if (layer + 1) % step == 0]
    listed = set(config.get("mlp_only_layers") or ()) & set(sparse)
    return {
        "experts_per_token": found["per_token"] or 1,
        "expert_width": width,
        "shared_width": found["shared_width"] or (found["shared_experts"] or 0) * width,
        "dense_layers": layers - len(sparse) + len(listed) + (found["dense_layers"] or 0),
    }


def odd_width(shape: Architecture | None) -> int | None:
    """A width that bitsandbytes 0.50 packs into 4 bits wrongly or not at all on a CPU: inputs by 64, outputs by 32."""
    if shape is None:
        return None
    inputs = (shape.hidden, shape.feed_forward, shape.heads * shape.head_dim)
    steps = [*((width, 64) for width in inputs), (shape.kv_heads * shape.head_dim, 32)]
    return next((width for width, step in steps if width % step), None)


def known(model: str) -> Architecture | None:
    """The shape of a model by name: from the catalogue or a folder; None where only a fetch can tell."""
    try:
        source = resolve(model)
    except Refusal:
        return None
    if source.model and source.model.architecture:
        came = None if source.kind == "random" else source.model.comes
        return replace(architecture(source.model.architecture), quantized=came)
    return _of_folder(source.path) if source.path else None


def _of_folder(path: Path) -> Architecture | None:
    try:
        return architecture(json.loads((path / "config.json").read_text("utf-8")))
    except (OSError, ValueError, AttributeError):
        return None


def _first(config: dict[str, Any], keys: tuple[str, ...]) -> int | None:
    return next((config[key] for key in keys if isinstance(config.get(key), int)), None)


def _window(config: dict[str, Any]) -> int | None:
    window = config.get("sliding_window")
    return window if isinstance(window, int) and config.get("use_sliding_window", True) else None


def _sliding(config: dict[str, Any], layers: int) -> int:
    """Layers with a sliding window: as listed, every one but each nth, those above a limit, every other, or all."""
    if not _window(config):
        return 0
    if kinds := config.get("layer_types"):
        return sum("sliding" in kind for kind in kinds)
    if pattern := config.get("sliding_window_pattern"):
        return layers - layers // pattern
    if isinstance(full := config.get("max_window_layers"), int):
        return max(0, layers - full)
    return -(-layers // 2) if config.get("model_type") == "gemma2" else layers
