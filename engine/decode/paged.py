"""transformers' own continuous batching, over pages: requests are handed over as they come, and its steps timed."""

import queue
import time
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.continuous_api import OutputRouter

from engine.decode.arrivals import Arrivals, InTurn
from engine.decode.prompts import Batch
from engine.decode.sampling import Sampling
from engine.decode.scheduler import places
from engine.event import Admitted, Step
from engine.refusal import Refusal

PAGE = 64
"""Tokens in a page: small enough that a short request does not hold a large one."""
KEPT = "_cached_continuous_batching_manager"
"""Where the library looks for a manager that was kept."""
SPARE = 2
"""Pages beside those of the requests, which the library takes for itself."""


class Outputs(OutputRouter):
    """Where the library's thread puts what a step brought: everything at once, with the moment."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: queue.SimpleQueue = queue.SimpleQueue()

    def deliver(self, output: Any) -> None:
        self.deliver_batch([output])

    def deliver_batch(self, outputs: list[Any]) -> None:
        self.steps.put((time.perf_counter(), outputs))


class Pages:
    """A manager of transformers with as much memory as slots would have, kept between turns.

    Prefix sharing is off, since every turn asks the same; no logits processor but the workload's. Times are those at
    which its thread delivers a step's tokens. Admission is the moment at which it says a request's life began.
    """

    def __init__(self, model: Any, rows: int, length: int, chunk: int, sampling: Sampling, room: int):
        self.model, self.rows, self.sampling, self.room = model, rows, sampling, room
        pages = -(-length // PAGE) * rows + SPARE
        wanted = {
            "page_size": PAGE, "block_size": PAGE, "num_blocks": pages, "max_batch_tokens": chunk + rows,
            "max_requests_per_batch": rows, "allow_block_sharing": False, "auto_switch_to_flash": False,
            "drop_unsupported_processors": False, "seed": sampling.seed,
        }  # fmt: skip
        known = {field.name for field in fields(ContinuousBatchingConfig)}
        if "page_size" in known:
            del wanted["block_size"]
        self.settings = {name: value for name, value in wanted.items() if name in known}
        self.manager: Any = None
        self.peak = self.admitted = 0

    def run(self, source: Arrivals | InTurn) -> None:
        """Until every request of the source has its answer."""
        self.source, self.peak, self.admitted = source, 0, 0
        self.going: dict[str, tuple[int, int]] = {}
        self.manager = self._opened()
        self.manager.start()
        try:
            while source.left or self.going:
                self._hand_over()
                for moment, outputs in self._delivered():
                    self._step(moment, outputs)
        finally:
            self._close(cut=bool(self.going))

    def _close(self, cut: bool) -> None:
        """Stop the library's thread; a manager that was cut short has answers left over and is not kept."""
        self.manager.stop(keep_for_next_session=not cut, hard_stop=cut)
        vars(self.model).pop(KEPT, None)
        if cut:
            self.manager = None

    def _opened(self) -> Any:
        """The manager of the last turn, or a new one; the library puts its attention in place either way."""
        if self.manager:
            setattr(self.model, KEPT, self.manager)
            return self.model.init_continuous_batching()
        sampling = self.sampling
        options: dict[str, Any] = {"do_sample": not sampling.greedy, "eos_token_id": -1}
        if not sampling.greedy:
            options |= {"temperature": sampling.temperature, "top_k": 0, "top_p": 1.0}
        if sampling.stop and sampling.fixed_length:
            options["suppress_tokens"] = sorted(sampling.stop)
        manager = self.model.init_continuous_batching(
            generation_config=GenerationConfig(**options),
            continuous_batching_config=ContinuousBatchingConfig(**self.settings),
        )
        manager.output_router = self.router = Outputs()
        return manager

    def _hand_over(self) -> None:
        """Give the library whoever has arrived; its own queue decides who waits."""
        self.source.look()
        whole, sampling = self.source.whole, self.sampling
        for place in self.source.hand_over(self.rows - len(self.going)):
            name = str(place)
            self.going[name] = (place, 0)
            self.manager.add_request(
                list(whole.prompts[place]),
                request_id=name,
                max_new_tokens=whole.lengths[place],
                streaming=True,
                eos_token_id=sorted(sampling.stop) if sampling.stop and not sampling.fixed_length else -1,
            )

    def _delivered(self) -> Iterator[tuple[float, list[Any]]]:
        """One step's outputs, or none if the next request arrives before."""
        wait = self.source.until_next()
        try:
            yield self.router.steps.get(timeout=0.1 if wait is None else min(wait, 0.1))
        except queue.Empty:
            if not self.manager.is_running() and self.router.steps.empty():
                raise RuntimeError("transformers' continuous batching stopped before the requests were done") from None

    def _step(self, moment: float, outputs: list[Any]) -> None:
        requests, made = [], []
        for output in outputs:
            if output.error:
                raise RuntimeError(f"transformers' continuous batching said: {output.error}")
            place, before = self.going[output.request_id]
            if not before:
                self._admitted(place, output.lifespan[0])
            requests.append(self.source.whole.requests[place])
            made.append(tuple(output.generated_tokens[before:]))
            self.going[output.request_id] = (place, len(output.generated_tokens))
            if output.is_finished():
                del self.going[output.request_id]
        self.peak = max(self.peak, len(requests))
        waiting = max(0, len(self.going) - self.rows)
        self.source.send(Step(moment, tuple(requests), tuple(made), waiting=waiting))

    def _admitted(self, place: int, moment: float) -> None:
        self.admitted += 1
        self.source.send(Admitted(moment, self.source.whole.requests[place]))

    def kv_bytes(self) -> int:
        """Bytes of the tensors that the library's cache holds."""
        processor = self.manager and self.manager.batch_processor
        return sum(t.numel() * t.element_size() for t in _tensors(processor.cache)) if processor else 0

    def facts(self) -> dict[str, Any]:
        """What the newest turn really did."""
        counted = {"page": PAGE, "peak": self.peak, "admitted": self.admitted}
        processor = self.manager and self.manager.batch_processor
        if not self.admitted or not processor:
            return {"kind": None, **counted}
        chunk = processor.cache.max_batch_tokens - self.rows
        return {"kind": "pages", "slots": self.rows, "room": self.room, "chunk": chunk, **counted}


def pages(model: Any, whole: Batch, knobs: dict[str, Any], kv_bytes: float, sampling: Sampling) -> Pages:
    """Pages for these requests. Raises Refusal where the memory budget does not hold one request."""
    length = -(-whole.tokens // PAGE) * PAGE
    limits = (int(knobs["memory_mb"] * 1e6), int(kv_bytes * length), len(whole.requests))
    rows, room = places(knobs["slots"], *limits), places(len(whole.requests), *limits)
    if not rows:
        raise Refusal(
            f"The longest request needs {kv_bytes * length / 1e6:.0f} MB for its keys and values, "
            f"but the memory for slots is {knobs['memory_mb']} MB.",
            "Allow more memory, or shorten the prompts or the output.",
        )
    return Pages(model, rows, length, knobs["chunk"], sampling, room)


def _tensors(cache: Any) -> list[torch.Tensor]:
    """The stores among the attributes of a cache, and in lists of them: numbers, or bytes. Each storage once."""
    found = [item for value in vars(cache).values() for item in (value if isinstance(value, list) else [value])]
    tensors = [t for t in found if torch.is_tensor(t) and (t.is_floating_point() or t.dtype is torch.uint8)]
    return list({tensor.untyped_storage().data_ptr(): tensor for tensor in tensors}.values())
