"""Launches that begin before the kernel ahead has ended: programmatic dependent launch (CUDA, from Hopper on)."""

import torch

SMALL = 2048
"""Width of models whose kernels are so short that it pays: a step took 0.41 against 0.52 ms at 576, 4.03 against 3.96
at 4096."""


def pays(width: int, device: torch.device) -> bool:
    """Whether the steps of a model of this width should be launched so on this device."""
    return device.type == "cuda" and width <= SMALL and torch.cuda.get_device_capability(device) >= (9, 0)


def early(on: bool) -> dict[str, bool]:
    """The options of a launch: whether the kernel has to wait itself, and that it may begin early."""
    return {"PDL": True, "launch_pdl": True} if on else {"PDL": False}
