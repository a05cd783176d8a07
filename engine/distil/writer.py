"""Writing: thousands of rows of the model's own text at once, with the state from which each token was chosen."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

# cuDNN's attention prepares itself anew for every length, which is another one in each step
BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclass(frozen=True)
class Manner:
    """How each row is written: `heat` [rows] is its temperature (0: the likeliest token), `endless` [rows] bans ends.

    A row's turns are given: `turns` [rows, turns, tokens] are read, not chosen, as far as `sizes` [rows, turns] goes;
    the next one is read when the model has ended its answer.
    """

    turns: torch.Tensor
    sizes: torch.Tensor
    heat: torch.Tensor
    endless: torch.Tensor


@dataclass(frozen=True)
class Written:
    """Text of equally long rows: `ids` [rows, tokens], and of each token the last `states` [rows, tokens, width].

    `made` [rows, tokens] says where the token after this one was the model's own choice.
    """

    ids: torch.Tensor
    states: torch.Tensor
    made: torch.Tensor


class Writer:
    """A Llama's decode step as few, large products, over one block of keys and values for all rows.

    All rows begin at place 0 and read their prompts token by token, so none is padded and nothing is masked.
    """

    def __init__(self, model: Any, rows: int, length: int):
        config, weight = model.config, model.get_output_embeddings().weight
        self.queries, self.groups = config.num_attention_heads, config.num_key_value_heads
        self.epsilon, self.length = config.rms_norm_eps, length
        self.embedding, self.head = model.get_input_embeddings(), weight
        self.norm = model.model.norm.weight
        self.layers = [_merged(layer) for layer in model.model.layers]
        places = torch.arange(length, device=weight.device)[None]
        self.cos, self.sin = (part[0] for part in model.model.rotary_emb(weight[:1, None], places))
        shape = (2, len(self.layers), rows, self.groups, length, self.cos.shape[-1])
        self.kept = weight.new_empty(shape)

    def step(self, ids: torch.Tensor, place: int) -> torch.Tensor:
        """Read one token of each row, ids [rows]; the last layer's states after the norm, [rows, width]."""
        states = self.embedding(ids)
        for number, layer in enumerate(self.layers):
            states = states + self._attend(layer, self._normed(states, layer["before"]), number, place)
            gate, up = functional.linear(self._normed(states, layer["between"]), layer["widen"]).chunk(2, -1)
            states = states + functional.linear(functional.silu(gate) * up, layer["narrow"])
        return self._normed(states, self.norm)

    def _normed(self, states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(states, weight.shape, weight, self.epsilon)

    def _attend(self, layer: dict[str, torch.Tensor], states: torch.Tensor, number: int, place: int) -> torch.Tensor:
        heads = functional.linear(states, layer["read"]).unflatten(-1, (-1, self.cos.shape[-1]))
        turned, values = heads[:, : -self.groups], heads[:, -self.groups :]
        first, second = turned.chunk(2, -1)
        turned = turned * self.cos[place] + torch.cat((-second, first), -1) * self.sin[place]
        keys, kept = self.kept[0, number], self.kept[1, number]
        keys[:, :, place], kept[:, :, place] = turned[:, self.queries :], values
        queries = turned[:, : self.queries, None]
        seen = functional.scaled_dot_product_attention(
            queries, keys[:, :, : place + 1], kept[:, :, : place + 1], enable_gqa=True
        )
        return functional.linear(seen.flatten(1), layer["write"])

    @torch.no_grad()
    def write(self, manner: Manner, end: int, late: Any = lambda: False) -> Written:
        """Text of `length` tokens a row, or of fewer when `late()` says so in the middle; `end` ends an answer."""
        rows, device = len(manner.sizes), manner.sizes.device
        every = torch.arange(rows, device=device)
        turn, place = every.new_zeros(rows), every.new_zeros(rows)
        token, ids, states, made = manner.turns[:, 0, 0].long(), [], [], []
        with sdpa_kernel(BACKENDS):
            for position in range(self.length):
                place = place + 1
                ids.append(token)
                states.append(self.step(token, position))
                given = place < manner.sizes[every, turn]
                made.append(~given)
                said = manner.turns[every, turn, place.clamp(max=manner.turns.shape[-1] - 1)].long()
                token = torch.where(given, said, self._choose(states[-1], manner, end))
                ended = (token == end) & ~given
                turn, place = (turn + ended) % manner.sizes.shape[1], torch.where(ended, -1, place)
                if late():
                    break
        return Written(torch.stack(ids, 1), torch.stack(states, 1), torch.stack(made, 1))

    def _choose(self, states: torch.Tensor, manner: Manner, end: int) -> torch.Tensor:
        """Gumbel's trick: the largest of logits with as much noise as the row is hot is a sample at its temperature."""
        logits = functional.linear(states, self.head).float()
        logits[:, end] -= torch.where(manner.endless, float("inf"), 0.0)
        noise = torch.empty_like(logits).exponential_().clamp_(min=1e-30).log_().mul_(manner.heat[:, None])
        return logits.sub_(noise).argmax(-1)


def _merged(layer: Any) -> dict[str, torch.Tensor]:
    attention, mlp = layer.self_attn, layer.mlp
    return {
        "before": layer.input_layernorm.weight,
        "read": torch.cat([part.weight for part in (attention.q_proj, attention.k_proj, attention.v_proj)]),
        "write": attention.o_proj.weight,
        "between": layer.post_attention_layernorm.weight,
        "widen": torch.cat((mlp.gate_proj.weight, mlp.up_proj.weight)),
        "narrow": mlp.down_proj.weight,
    }
