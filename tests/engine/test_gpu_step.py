"""The native step of a GPU computes what the modules compute: in Triton's interpreter, and on a GPU."""

import importlib.util
import sys

import pytest
import torch

from tests.engine.processes import python

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
CASES = {"skinny_cases": "every product agrees", "gpu_step_cases": "every step agrees"}
CASES |= {"gpu_prompt_cases": "every prompt agrees", "gpu_slots_cases": "every slot agrees"}
CASES |= {"gpu_draft_cases": "every guess is checked", "gpu_round_cases": "every round agrees"}
CASES |= {"persistent_cases": "every meeting agrees"}


@pytest.mark.parametrize("cases", CASES)
def test_they_agree_in_the_interpreter(cases):
    done = python("-m", f"tests.engine.{cases}", TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stderr[-2000:]
    assert CASES[cases] in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="Triton's compiler comes for Linux")
def test_the_persistent_step_compiles_for_a_gpu_that_is_not_here(tmp_path):
    done = python("-m", "tests.engine.persistent_builds", TRITON_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "the persistent step compiles" in done.stdout


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("cases", CASES)
def test_they_agree_on_a_gpu(cases):
    done = python("-m", f"tests.engine.{cases}", "cuda")
    assert done.returncode == 0, done.stderr[-2000:]
    assert CASES[cases] in done.stdout
