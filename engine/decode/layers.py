"""Decoder layers of the Llama family whose small operators are Triton kernels."""

from typing import Any

import torch
from torch import nn
from transformers.cache_utils import StaticLayer

from engine.kernels.rms_norm import rms_norm
from engine.kernels.rope import HeadNorm, rope_into_cache
from engine.kernels.swiglu import swiglu
from engine.refusal import Refusal

Deferred = tuple[torch.Tensor, torch.Tensor]
"""What a layer adds and the residual it is to be added to: the next norm adds them in its own kernel."""


class KernelNorm(nn.Module):
    """An RMSNorm that adds a residual first; takes the weight of the module that it replaces."""

    def __init__(self, plain: nn.Module):
        super().__init__()
        self.weight = plain.weight
        self.eps = plain.variance_epsilon

    def forward(self, values: torch.Tensor | Deferred) -> torch.Tensor:
        return self.both(values)[0]

    def both(self, values: torch.Tensor | Deferred) -> tuple[torch.Tensor, torch.Tensor]:
        """The normalised values and the new residual."""
        if isinstance(values, tuple):
            return rms_norm(values[0], self.weight, self.eps, residual=values[1])
        return rms_norm(values, self.weight, self.eps)


class KernelMLP(nn.Module):
    """The feed-forward layer with its activation and product in one kernel."""

    def __init__(self, plain: nn.Module):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = plain.gate_proj, plain.up_proj, plain.down_proj

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.down_proj(swiglu(self.gate_proj(values), self.up_proj(values)))


class KernelAttention(nn.Module):
    """Attention whose head norms, rotation and cache write are one kernel; needs a static cache.

    `attend` is one of transformers' attention functions, which reads some settings off the plain module.
    """

    def __init__(self, plain: nn.Module, attend: Any):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = plain.q_proj, plain.k_proj, plain.v_proj, plain.o_proj
        self.attend, self.layer_idx, self.head_dim = attend, plain.layer_idx, plain.head_dim
        self.num_key_value_groups, self.scaling, self.is_causal = plain.num_key_value_groups, plain.scaling, True
        self.norm = HeadNorm(plain.q_norm.weight, plain.k_norm.weight, plain.q_norm.variance_epsilon) if (
            hasattr(plain, "q_norm")
        ) else None  # fmt: skip

    def forward(self, values: torch.Tensor, angles: Deferred, cache: Any, mask: torch.Tensor | None) -> torch.Tensor:
        """values [batch, tokens, hidden]; `angles` are cosine and sine [1 or batch, tokens, head size]."""
        heads = (*values.shape[:-1], -1, self.head_dim)
        q, k, v = (part(values).view(heads) for part in (self.q_proj, self.k_proj, self.v_proj))
        layer = _ready(cache, self.layer_idx, k)
        turned = rope_into_cache(q, k, v, angles, (layer.keys, layer.values), layer.cumulative_length, self.norm)
        layer.cumulative_length.add_(values.shape[1])
        out, _ = self.attend(self, turned, layer.keys, layer.values, mask, dropout=0.0, scaling=self.scaling)
        return self.o_proj(out.reshape(*values.shape[:-1], -1))


def _ready(cache: Any, number: int, k: torch.Tensor) -> StaticLayer:
    """The cache's layer, allocated; k is [batch, tokens, kv heads, size]."""
    layer = cache.layers[number] if cache is not None else None
    if type(layer) is not StaticLayer:
        raise Refusal(
            f"The fused kernels write into a static cache that keeps every token, not into {type(layer).__name__}.",
            "Set the KV cache to static and keep the text shorter than the model's attention window.",
        )
    if not layer.is_initialized:
        heads = k.transpose(1, 2)
        layer.lazy_initialization(heads, heads)
    return layer


class KernelLayer(nn.Module):
    """A decoder layer that leaves its last addition to the next one's norm."""

    def __init__(self, plain: nn.Module, attend: Any):
        super().__init__()
        self.input_layernorm = KernelNorm(plain.input_layernorm)
        self.post_attention_layernorm = KernelNorm(plain.post_attention_layernorm)
        self.self_attn = KernelAttention(plain.self_attn, attend)
        self.mlp = KernelMLP(plain.mlp)

    def forward(
        self,
        hidden_states: torch.Tensor | Deferred,
        attention_mask: torch.Tensor | None = None,
        position_embeddings: Deferred | None = None,
        cache: Any = None,
        past_key_values: Any = None,
        **_: Any,
    ) -> Deferred:
        """The names of the arguments are transformers' own; its cache is `past_key_values` up to 5.23."""
        normed, residual = self.input_layernorm.both(hidden_states)
        kept = cache if cache is not None else past_key_values
        attended = self.self_attn(normed, position_embeddings, kept, attention_mask)
        normed, residual = self.post_attention_layernorm.both((attended, residual))
        return self.mlp(normed), residual
