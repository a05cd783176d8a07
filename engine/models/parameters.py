"""Parameters: how many numbers each part of a model holds, counted from its shape before a weight is loaded."""

from dataclasses import dataclass

from engine.models.architecture import Architecture


@dataclass(frozen=True)
class Parameters:
    """Numbers by part; a `head` that is tied to the `embedding` holds none of its own.

    `linear` are the matrices that every token passes through (attention, dense feed-forward layers, shared experts),
    `experts` those of all routed experts and `expert` of a single one in one layer; `router` chooses among them.
    `small` are norms and biases, `positions` the learned places.
    """

    embedding: int
    positions: int
    linear: int
    router: int
    expert: int
    experts: int
    small: int
    head: int

    @property
    def total(self) -> int:
        return (
            self.embedding + self.positions + self.linear + self.router + self.experts + self.small + self.head
        )  # fmt: skip


def parameters(shape: Architecture) -> Parameters:
    """Count them. Exact for the families of engine.models.families and those laid out as Llama, else about right."""
    mixtures = shape.layers - shape.dense_layers if shape.experts else 0
    matrices = 3 if shape.family.gated else 2
    dense = (shape.layers - mixtures) * matrices * shape.hidden * shape.feed_forward
    shared = mixtures * matrices * shape.hidden * shape.shared_width
    expert = matrices * shape.hidden * shape.expert_width
    return Parameters(
        embedding=shape.vocabulary * shape.hidden,
        positions=shape.family.positions * shape.hidden,
        linear=shape.layers * attention(shape) + dense + shared,
        router=mixtures * shape.hidden * (shape.experts + shape.family.shared_gate),
        expert=expert,
        experts=mixtures * shape.experts * expert,
        small=shape.layers * _small(shape) + _norm(shape) + shape.vocabulary * ("head" in shape.family.biases),
        head=0 if shape.tied else shape.vocabulary * shape.hidden,
    )


def attention(shape: Architecture) -> int:
    """The projections of one layer: queries and output for all heads, keys and values for theirs."""
    return 2 * shape.hidden * shape.head_dim * (shape.heads + shape.kv_heads)


def _norm(shape: Architecture) -> int:
    return shape.hidden * (2 if shape.family.layer_norm else 1)


def _small(shape: Architecture) -> int:
    """Norms and biases of one layer."""
    family = shape.family
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    biases = {
        "qkv": queries + 2 * keys,
        "out": shape.hidden,
        "ffn": shape.feed_forward * (2 if family.gated else 1) + shape.hidden,
    }
    inner = {"none": 0, "head": 2 * shape.head_dim, "all": queries + keys}[family.query_norms]
    return family.norms * _norm(shape) + inner + sum(biases.get(name, 0) for name in family.biases)
