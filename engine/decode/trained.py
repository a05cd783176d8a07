"""A trained draft in memory: a few layers between the whole model's embedding and a head of frequent tokens."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from transformers import AutoModelForCausalLM

from engine.models.drafts import FACTS, described

KEPT, SCALE = "kept", ".scale"
LARGEST = 127


class Borrowed(nn.Module):
    """The whole model's embedding, in the draft's number format; its weights stay the whole model's."""

    def __init__(self, weight: torch.Tensor, dtype: torch.dtype):
        super().__init__()
        self.table, self.dtype = (weight.detach(),), dtype  # in a tuple it is no parameter of the draft

    @property
    def weight(self) -> torch.Tensor:
        return self.table[0]

    def give_back(self) -> None:
        """Let go of the weights: whoever packed them has what it needs."""
        self.table = ()

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return functional.embedding(ids, self.weight).to(self.dtype)


def build(whole: nn.Module, layers: int, kept: torch.Tensor, dtype: torch.dtype) -> nn.Module:
    """A draft of so many layers for the `whole` model, on its device; its weights are drawn by chance.

    Its logits are those of the tokens `kept` [n] alone, in this order.
    """
    config = copy.deepcopy(whole.config)
    config.num_hidden_layers, config.vocab_size, config.tie_word_embeddings = layers, len(kept), False
    config.pad_token_id = None  # that of the whole model may be no row of so small a table
    attention = whole.config._attn_implementation
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    model.set_input_embeddings(Borrowed(whole.get_input_embeddings().weight, dtype))
    model.kept = kept.long().to(whole.device)
    return model.to(whole.device).eval()


def save(model: nn.Module, path: Path, facts: dict[str, Any]) -> None:
    """Write a draft: matrices as 8-bit integers with one scale a row, half the bytes of 16-bit numbers."""
    tensors = {KEPT: model.kept.int().cpu()}
    for name, weight in model.state_dict().items():
        weight = weight.detach().float().cpu()
        if weight.dim() > 1:
            scale = weight.abs().amax(-1).clamp(min=1e-12) / LARGEST
            tensors[name + SCALE] = scale
            weight = (weight / scale[:, None]).round().to(torch.int8)
        tensors[name] = weight.contiguous()
    said = {**facts, "vocabulary": len(tensors[KEPT])}
    part = path.with_suffix(".part")  # whoever looks while it is written finds the one before
    save_file(tensors, part, metadata={"format": "pt", FACTS: json.dumps(said)})
    part.replace(path)


def load(path: Path, whole: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The draft of a file beside the `whole` model, on its device. Raises Refusal for a file that is no draft."""
    found = described(path)
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safe_open is no dict)
    model = build(whole, len(found.layers), tensors.pop(KEPT), dtype)
    scales = {name: tensors.pop(name) for name in list(tensors) if name.endswith(SCALE)}
    weights = {name: _plain(weight, scales.get(name + SCALE)).to(dtype) for name, weight in tensors.items()}
    model.load_state_dict(weights)
    return model


def _plain(weight: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    return weight if scale is None else weight.float() * scale[:, None]
