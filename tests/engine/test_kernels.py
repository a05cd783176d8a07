"""The fused kernels agree with the plain operators: in Triton's interpreter, compiled for a GPU, and on one."""

import importlib.util
import sys

import pytest
import torch

from tests.engine.processes import python

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


def test_they_agree_with_float64_in_the_interpreter():
    done = python("-m", "tests.engine.kernel_cases", TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "every kernel agrees" in done.stdout


def test_layers_made_of_them_write_the_same_tokens_in_the_interpreter():
    done = python("-m", "tests.engine.fused_cases", TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "every layer agrees" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="Triton's compiler comes for Linux")
def test_they_compile_for_a_gpu_that_is_not_here(tmp_path):
    done = python("-m", "tests.engine.kernel_builds", TRITON_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "every kernel compiles" in done.stdout


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("cases", ["kernel_cases", "fused_cases"])
def test_they_agree_on_a_gpu(cases):
    done = python("-m", f"tests.engine.{cases}", "cuda")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "agrees" in done.stdout
