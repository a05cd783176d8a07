"""The kernels of a whole decode step agree with float64: in Triton's interpreter, compiled for a GPU, and on one."""

import importlib.util
import sys
import threading
import time

import pytest
import torch

from engine.refusal import Refusal
from tests.engine.processes import python

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


def test_they_agree_with_float64_in_the_interpreter():
    done = python("-m", "tests.engine.step_cases", TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "every kernel of the step agrees" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="Triton's compiler comes for Linux")
def test_they_compile_for_a_gpu_that_is_not_here(tmp_path):
    done = python("-m", "tests.engine.step_builds", TRITON_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "every kernel of the step compiles" in done.stdout


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_they_agree_on_a_gpu():
    done = python("-m", "tests.engine.step_cases", "cuda")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "agrees" in done.stdout


def mailbox(slots: int, rows: int):
    from engine.kernels.argmax import Mailbox

    return Mailbox(slots, rows, "cpu")


def test_a_mailbox_waits_for_every_row_of_a_step():
    box = mailbox(slots=2, rows=2)
    box.words[1] = torch.tensor([3 << 32 | 17, 1 << 32 | 99])

    def write() -> None:
        time.sleep(0.05)
        box.words[1, 1] = 3 << 32 | 0xFFFFFFFF

    writer = threading.Thread(target=write)
    writer.start()
    begun = time.monotonic()
    assert box.read(3, timeout_s=5) == [17, -1]
    assert time.monotonic() - begun > 0.04
    writer.join()


def test_a_mailbox_says_what_is_missing_and_what_is_gone():
    box = mailbox(slots=2, rows=1)
    with pytest.raises(Refusal, match=r"no token for step 0 within 0\.01 s"):
        box.read(0, timeout_s=0.01)
    box.words[0] = 2 << 32 | 5
    with pytest.raises(Refusal, match="step 0 have been written over"):
        box.read(0)
    assert box.read(2) == [5]
    box.clear()
    with pytest.raises(Refusal, match="no token for step 2"):
        box.read(2, timeout_s=0.01)
