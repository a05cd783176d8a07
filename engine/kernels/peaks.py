"""The compiled loops of peaks.cpp: how fast this processor reads memory, and how fast it multiplies, at most."""

import ctypes
from pathlib import Path

import torch

from engine.kernels.native import library

SOURCE = Path(__file__).with_suffix(".cpp")
KINDS = {"float32": 0, "bfloat16": 1, "int8": 2}


def read(data: torch.Tensor, threads: int, passes: int = 1) -> float:
    """Read every number `passes` times and return the sum, which nobody needs but which keeps the compiler honest.

    Raises ValueError for anything but contiguous float32 on the processor, Refusal without a compiler.
    """
    if data.dtype != torch.float32 or not data.is_contiguous() or data.device.type != "cpu":
        raise ValueError("the compiled loop reads contiguous float32 tensors of the processor")
    function = library(SOURCE).read_all
    function.restype = ctypes.c_float
    return function(ctypes.c_void_p(data.data_ptr()), *map(ctypes.c_int64, (data.numel(), threads, passes)))


def multiply(kind: str, threads: int, jobs: int) -> float:
    """Operations a second of threads that multiply and add in registers; 0 where there is no instruction for a kind.

    Only the time counts in which a thread had a core, so that neighbours do not show. A job is some 0.02 ms. Raises
    Refusal without a compiler.
    """
    function = library(SOURCE).multiply
    function.restype = ctypes.c_double
    return function(*map(ctypes.c_int64, (KINDS[kind], threads, jobs)), ctypes.byref(ctypes.c_float()))
