"""Does a kernel that stays beat a recording of five kernels a layer? The same step both ways, from the same prompt.

A program, `python -m engine.bench.persistent MODEL`; it prints a line of JSON. See engine.kernels.persistent.
"""

import json
import sys
import time
from functools import partial
from typing import Any

import torch

from engine.bench.checks import opened
from engine.bench.interleaved import interleaved
from engine.bench.rows import NATIVE
from engine.bench.texts import PROMPT
from engine.decode.gpu_feeding import Feeding, Runner
from engine.decode.gpu_native import GpuNative
from engine.decode.sampling import Sampling
from engine.kernels.persistent import Persistent
from engine.refusal import Refusal

STEPS = 256
CLOSE = 0.1
"""How far logits in 16 bits may be off, of their norm, where sums are taken in another order: those of the modules,
which also round elsewhere, were 3 to 6 % off in three steps of SmolLM2-135M."""


class Staying(Feeding):
    """The step that feeds itself as one kernel, over weights of its own and the same cache."""

    def __init__(self, model: Any, steps: Any, sampling: Sampling):
        super().__init__(model, steps, sampling)
        self.kernel = Persistent(steps.weights, steps.context)

    def body(self) -> None:
        self.kernel.launch(self.feed, self.peaks, self.banned)


class Race:
    """Both steps behind a prompt ids [1, tokens], for `steps` tokens. Raises Refusal for what cannot be recorded."""

    def __init__(self, native: GpuNative, model: Any, ids: torch.Tensor, steps: int):
        self.steps, self.place = steps, ids.shape[1]
        self.stepper = native.stepper(model, self.place + steps)
        self.first = self.stepper.prefill(ids)[:, -1].argmax(-1)[:, None]
        kinds = {"persistent": Staying, "recorded": Feeding}
        sampling = Sampling(frozenset(), True)
        self.runners = {name: Runner(kind(model, self.stepper.steps, sampling)) for name, kind in kinds.items()}
        for runner in self.runners.values():
            runner.record(self.place, [0])
        self.written: dict[str, list[int]] = {}

    @property
    def kernel(self) -> Persistent:
        return self.runners["persistent"].step.kernel

    def turn(self, name: str) -> float:
        """Milliseconds of a step. Raises Refusal where the persistent step's programs did not meet."""
        runner = self.runners[name]
        runner.start(self.first, self.place, [0])
        began = time.perf_counter()
        self.written[name] = []
        for number in range(self.steps):
            runner.launch_until(number, self.steps)
            self.written[name] += runner.read(number)
        spent = time.perf_counter() - began
        self.kernel.check()
        return 1000 * spent / self.steps

    def off(self) -> float:
        """How far the persistent step's first logits are from those of the recorded kernels, of their norm.

        Raises Refusal where that is too far.
        """
        runner = self.runners["persistent"]
        runner.start(self.first, self.place, [0])
        runner.replay()
        runner.read(0)
        wanted = self.stepper.steps.step(self.first, self.place)[0]
        off = float((self.kernel.logits - wanted).norm() / wanted.norm())
        if not off < CLOSE:
            raise Refusal(f"The persistent step computes something else: its logits are off by {off:.1%}.", "Mend it.")
        return off

    def same(self) -> int:
        """Tokens that both wrote before they parted."""
        pairs = zip(*self.written.values(), strict=True)
        return next((place for place, (one, other) in enumerate(pairs) if one != other), self.steps)


@torch.inference_mode()
def measured(model: str) -> dict[str, Any]:
    session, _ = opened("cuda", model, NATIVE)
    ids = torch.tensor([session.tokenizer(PROMPT)["input_ids"]], device="cuda")
    race = Race(session.native, session.model, ids, STEPS)
    off = race.off()
    found = interleaved({name: partial(race.turn, name) for name in race.runners})
    return {"model": model, "steps": STEPS, "off": off, "same": race.same(), **found}


if __name__ == "__main__":
    try:
        print(json.dumps(measured(sys.argv[1])))
    except Refusal as refusal:
        sys.exit(str(refusal))
