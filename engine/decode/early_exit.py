"""A model cut after its first layers: the same modules, so it costs no memory of its own."""

import copy

import torch
from torch import nn

from engine.decode.stepper import Cached, Forward, Stepper, cache_argument, take_back
from engine.refusal import Refusal


def first_layers(model: nn.Module, count: int) -> nn.Module:
    """The first `count` layers of a model with its own embeddings, norm and head; nothing is copied but the frame.

    Raises Refusal for a model whose layers do not stand in one list, or that has no more than `count` of them.
    """
    path, total = _stack(model)
    if path is None:
        raise Refusal("The layers of this model do not stand in one list.", "Choose another kind of guessing.")
    if count >= total:
        raise Refusal(
            f"The model has {total} layers, and {count} of them are to guess.",
            f"Set the layers of early exit to {total - 1} or fewer.",
        )
    *above, last = path.split(".")
    cut = part = _frame(model)
    for name in above:
        part._modules[name] = _frame(part._modules[name])
        part = part._modules[name]
    part._modules[last] = nn.ModuleList(list(part._modules[last])[:count])
    return cut


def _stack(model: nn.Module) -> tuple[str | None, int]:
    """Where a whole model's layers stand, and how many they are."""
    total = model.config.get_text_config().num_hidden_layers
    lists = ((name, part) for name, part in model.named_modules() if isinstance(part, nn.ModuleList))
    return next((name for name, part in lists if len(part) == total), None), total


def _frame(module: nn.Module) -> nn.Module:
    """The same module with a table of children of its own."""
    frame = copy.copy(module)
    frame._modules = dict(module._modules)
    return frame


class Shallow(Stepper):
    """Steps of the first layers alone, over the first layers of the whole model's cache."""

    def __init__(self, model: nn.Module, layers: int, whole: Cached, compiled: Forward | None):
        super().__init__(model, [0])
        self.layers, self.whole, self.compiled = layers, whole, compiled

    @property
    def ran(self) -> int:
        """How many layers guess, counted in the modules that do."""
        return len(self.model.get_submodule(_stack(self.whole.model)[0]))

    def step(self, ids: torch.Tensor) -> torch.Tensor:
        forward = self.compiled or self.model.forward
        kept = {cache_argument(type(self.model)): self.whole.cache}
        return forward(ids, use_cache=True, logits_to_keep=1, **kept).logits

    def rollback(self, tokens: int) -> None:
        take_back(self.whole.cache.layers[: self.layers], tokens)
