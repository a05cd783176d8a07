"""How long guessing takes in a speculative step, read without making the device wait."""

import time

import torch


class DraftClock:
    """Use as `with clock:` around a proposal, and `read` once the step's tokens have arrived on the host.

    On CUDA the device's own events are the clock: the host has only started the work when the proposal returns, and
    waiting for it would cost what is measured.
    """

    def __init__(self, device: torch.device):
        cuda = device.type == "cuda"
        self.events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if cuda else []
        self.times = [0.0, 0.0]

    def __enter__(self) -> None:
        self._mark(0)

    def __exit__(self, *error: object) -> None:
        self._mark(1)

    def read(self) -> float:
        """Seconds of the newest proposal. On CUDA only after something that followed it has been waited for."""
        if self.events:
            return self.events[0].elapsed_time(self.events[1]) / 1000
        return self.times[1] - self.times[0]

    def _mark(self, place: int) -> None:
        if self.events:
            self.events[place].record()
        else:
            self.times[place] = time.perf_counter()
