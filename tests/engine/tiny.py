"""Tiny models in memory, for tests of what is done to loaded modules."""

from typing import Any

import torch
import transformers

from tests.engine.tiny_models import DECODERS, WORDS


def tiny(kind: str, **changes: Any) -> Any:
    """A model in eval mode, float32 on the CPU; the same weights every time. `changes` are set on its config.

    Biases are random too.
    """
    config = DECODERS[kind]()
    for key, value in changes.items():
        setattr(config, key, value)
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if key.endswith("bias"):
                weight.normal_(0, 0.3)
    return model


def prompts(*lengths: int) -> tuple[tuple[int, ...], ...]:
    """Random token ids of these lengths."""
    generator = torch.Generator().manual_seed(3)
    return tuple(tuple(torch.randint(1, len(WORDS), (length,), generator=generator).tolist()) for length in lengths)
