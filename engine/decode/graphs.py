"""A decode step that feeds itself, and its recording as one CUDA graph."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from transformers import StaticCache

from engine.backends import Emit
from engine.decode.loop import Going, enter, padded
from engine.decode.prompts import Batch
from engine.decode.sampling import Sampling, check_finite
from engine.decode.stepper import Preallocated, Stepper, cache_argument
from engine.refusal import Refusal

SLOTS = 4
"""Places in the ring of produced tokens; the host reads one step late, so two would be enough."""
WARM_STEPS = 3
MASKED = ("sdpa", "eager")
"""Ways to compute attention that take a mask which is a tensor."""
FULL, SLIDING = "full_attention", "sliding_attention"
"""The kinds of layers that transformers' configs tell apart."""


class Choosing:
    """How a recorded step chooses its tokens, all of it on the device."""

    def __init__(self, sampling: Sampling, device: torch.device):
        self.sampling = sampling
        self.banned = sampling.banned(device)
        self.generator = sampling.generator(device)

    def choose(self, logits: torch.Tensor) -> torch.Tensor:
        """Token ids [rows] from logits [rows, vocabulary]: the largest, or a draw by the exponential race.

        The token with the least noise / share is distributed as the shares are, and no value has to be read on
        the host, which a draw from a cumulated distribution needs. Source: Efraimidis and Spirakis 2006,
        doi:10.1016/j.ipl.2005.11.003.
        """
        if self.sampling.greedy:
            if self.banned is not None:
                logits = logits.index_fill(-1, self.banned, float("-inf"))
            return logits.argmax(-1)
        shares = self.sampling.shares(logits, self.banned)
        noise = torch.empty_like(shares).exponential_(1, generator=self.generator)
        return shares.div_(noise).argmax(-1)


class SelfFeeding(Choosing):
    """One decode step whose input is the last one's output, all of it on the device.

    `body` is an ordinary function: it runs eagerly anywhere, and can be recorded because it neither reads a
    value on the host nor allocates what outlives it. State: `tokens` [rows, 1], `place` [1] (column of the cache
    that is written next), `pad` [rows, 1] and `ring` [SLOTS, rows].
    """

    def __init__(self, model: Any, cache: StaticCache, rows: int, sampling: Sampling):
        super().__init__(sampling, model.device)
        self.model, self.cache = model, cache
        device = model.device
        whole = {"dtype": torch.long, "device": device}
        self.tokens = torch.zeros(rows, 1, **whole)
        self.pad = torch.zeros(rows, 1, **whole)
        self.place = torch.zeros(1, **whole)
        self.slot = torch.zeros(1, **whole)
        self.ring = torch.zeros(SLOTS, rows, **whole)
        self.columns = torch.arange(cache.get_max_length(), device=device)
        self.kinds = layer_kinds(model.config)

    def start(self, tokens: torch.Tensor, place: int, pad: list[int]) -> None:
        """Begin after a prefill of `place` columns with the first tokens [rows, 1]."""
        self.tokens.copy_(tokens)
        self.pad.copy_(torch.tensor(pad, device=self.pad.device)[:, None])
        self.set(place)
        self.slot.zero_()

    def reader(self, pad: list[int]) -> Preallocated:
        """What reads the prompts into the cache that the step goes on in."""
        return Preallocated(self.model, pad, self.cache, None)

    def set(self, place: int) -> None:
        """Move to a column: everything from there on is forgotten."""
        self.place.fill_(place)
        for layer in self.cache.layers:
            layer.cumulative_length.fill_(place)

    def body(self) -> None:
        """One token for every row."""
        out = self.model.forward(
            self.tokens,
            attention_mask=self._mask(),
            position_ids=self.place - self.pad,
            use_cache=True,
            logits_to_keep=1,
            **{cache_argument(type(self.model)): self.cache},
        )
        self.tokens.copy_(self.choose(out.logits[:, -1])[:, None])
        self.ring.index_copy_(0, self.slot, self.tokens.view(1, -1))
        self.place.add_(1)
        self.slot.add_(1).remainder_(SLOTS)

    def _mask(self) -> torch.Tensor | dict[str, torch.Tensor]:
        """Which columns each row may look at, [rows, 1, 1, columns]; for layers of two kinds by their kind."""
        seen = (self.columns <= self.place) & (self.columns >= self.pad)
        if self.kinds == {FULL}:
            return self._as_mask(seen)
        near = self._as_mask(seen & (self.columns > self.place - self.model.config.sliding_window))
        return near if self.kinds == {SLIDING} else {FULL: self._as_mask(seen), SLIDING: near}

    def _as_mask(self, seen: torch.Tensor) -> torch.Tensor:
        seen = seen[:, None, None, :]
        if self.model.config._attn_implementation == "sdpa":
            return seen
        dtype = self.model.dtype
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)


def layer_kinds(config: Any) -> set[str]:
    """The kinds of attention in a model's layers, as its config tells."""
    if kinds := getattr(config, "layer_types", None):
        return set(kinds)
    return {SLIDING if getattr(config, "sliding_window", None) else FULL}


class GraphStep:
    """Launches a self-feeding step: on CUDA as a recorded graph, elsewhere as the plain function."""

    def __init__(self, step: SelfFeeding):
        self.step = step
        self.graph: Any = None
        pinned = step.ring.is_cuda
        self.host = torch.empty(step.ring.shape, dtype=torch.long, pin_memory=pinned)
        self.events = [torch.cuda.Event() for _ in range(SLOTS)] if pinned else []
        self.launched = 0

    @property
    def replay(self) -> Callable[[], None]:
        return self.graph.replay if self.graph else self.step.body

    def record(self, place: int, pad: list[int]) -> None:
        """Record the step once, after a prefill of `place` columns; a turn starts afresh afterwards.

        Raises Refusal where that fails.
        """
        if self.graph or not self.events:
            return
        self.step.start(self.step.tokens, place, pad)
        self.graph = recorded(self.step.body, self.step.generator)

    def start(self, tokens: torch.Tensor, place: int, pad: list[int]) -> None:
        """A turn begins after a prefill of `place` columns with the first tokens [rows, 1]."""
        self.step.start(tokens, place, pad)
        self.launched = 0

    def launch(self) -> None:
        """Start one step and the copy of its tokens to the host; returns at once on CUDA."""
        self.replay()
        slot = self.launched % SLOTS
        self.host[slot].copy_(self.step.ring[slot], non_blocking=True)
        if self.events:
            self.events[slot].record()
        self.launched += 1

    def launch_until(self, number: int, most: int) -> None:
        """Start steps up to the one before `number`: the host reads one step late. Never more than `most`."""
        while self.launched < min(number + 1, most):
            self.launch()

    def read(self, number: int) -> list[int]:
        """The tokens of launch `number`; waits until they are there."""
        slot = number % SLOTS
        if self.events:
            self.events[slot].synchronize()
        return self.host[slot].tolist()


@functools.cache
def _pool() -> Any:
    """The memory that all graphs share: they run one after another, and none reads what another left there."""
    return torch.cuda.graph_pool_handle()


@functools.cache
def _side() -> torch.cuda.Stream:
    """The stream that all graphs are recorded on: memory that one left is free for another on the same stream only."""
    return torch.cuda.Stream()


def recorded(body: Callable[[], None], generator: torch.Generator | None = None) -> Any:
    """The body as a CUDA graph, warmed up first. Other threads may use CUDA meanwhile.

    Raises Refusal where it cannot be recorded.
    """
    try:
        return _recorded(body, generator)
    except RuntimeError as error:  # torch.OutOfMemoryError and failed captures are both RuntimeErrors
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise Refusal(
            f"The decode step cannot be recorded as a CUDA graph: {first[:200]}.",
            "Switch the CUDA graph off, or shorten the batch and the context if memory was short.",
        ) from error


def _recorded(body: Callable[[], None], generator: torch.Generator | None) -> Any:
    side = _side()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_STEPS):
            body()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    if generator is not None:
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph, pool=_pool(), stream=side, capture_error_mode="thread_local"):
        body()
    return graph


def graph_step(model: Any, cache: StaticCache, rows: int, sampling: Sampling) -> GraphStep:
    """A step to keep for all turns of this batch, cache and sampling. Raises Refusal for what cannot be recorded.

    Every layer of the cache keeps all tokens (`keep_all`), also where the model looks at a window of them only.
    """
    attention = model.config._attn_implementation
    if attention not in MASKED:
        raise Refusal(f"A CUDA graph needs sdpa or eager attention, not {attention}.", "Choose sdpa.")
    if odd := layer_kinds(model.config) - {FULL, SLIDING}:
        raise Refusal(
            f"A CUDA graph cannot be recorded of layers with {' and '.join(sorted(odd)).replace('_', ' ')}.",
            "Switch the CUDA graph off for this model.",
        )
    return GraphStep(SelfFeeding(model, cache, rows, sampling))


def graph_decode(runner: GraphStep, batch: Batch, emit: Emit) -> Stepper:
    """Plain decoding by replays: the host starts step n + 1 before it reads the tokens of step n.

    When the tokens say that every request is done, the one step that is ahead is thrown away. Token for token
    the same as engine.decode.loop.decode. Returns the stepper that read the prompts.
    """
    step = runner.step
    enter(batch, emit)
    stepper = step.reader(batch.pad)
    logits = stepper.prefill(padded(batch, step.model.device))
    check_finite(logits)
    runner.record(stepper.length, batch.pad)
    step.generator.manual_seed(step.sampling.seed)
    tokens = step.choose(logits[:, -1])[:, None]
    runner.start(tokens, stepper.length, batch.pad)
    going, most = Going(batch, step.sampling), batch.longest - 1
    emit(going.step(tokens[:, 0].tolist(), stepper.length))
    while going.rows:
        number = going.made - 1
        runner.launch_until(number + 1, most)
        emit(going.step(runner.read(number), stepper.length + going.made))
    stepper.length += runner.launched
    return stepper
