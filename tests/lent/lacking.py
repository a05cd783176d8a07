"""Starts app.py as a ZeroGPU Space does, with the real package `spaces` on a machine that has no GPU.

What a torch without CUDA lacks is put where the package looks for it, and the one step that needs a device is left out:
waking the GPU in the forked process. All else is the package's own.
"""

import os
import runpy
import sys
from importlib import import_module

import torch

sys.path[0] = os.getcwd()  # and not the folder of this file, where the stand-in lies
for name in ("_cuda_init", "_cuda_exchange_device", "_cuda_maybe_exchange_device"):
    if not hasattr(torch._C, name):
        setattr(torch._C, name, bool)
if not torch.version.cuda:
    torch.version.cuda, torch.cuda._is_in_bad_fork = "13.0", bool

import_module("gradio")  # before the package, as in app.py
lent = import_module("spaces.zero.torch")
lent.init = lent.move = lambda *args, **kwargs: None
sys.argv[0] = "app.py"
runpy.run_path("app.py", run_name="__main__")
