"""Which of torch's attention kernels runs, and how it is called."""

import torch
from torch.nn.attention import SDPBackend

from engine.decode import attention
from engine.plan import Plan
from tests.engine.tiny import tiny


@torch.inference_mode()
def test_a_kernel_without_shared_heads_gets_them_repeated(monkeypatch):
    """torch's memory-efficient kernel, which is a GPU's: here another one stands in for it."""
    monkeypatch.setitem(attention.BACKENDS, "efficient", SDPBackend.MATH)
    model, ids, shared = tiny("llama"), torch.arange(1, 9)[None], []
    real = torch.nn.functional.scaled_dot_product_attention

    def heard(*args, enable_gqa=False, **more):
        shared.append(enable_gqa)
        return real(*args, enable_gqa=enable_gqa, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", heard)
    wanted = model(ids).logits
    assert all(shared) and shared
    shared.clear()
    with attention.allowed(Plan("transformers", "m", sdpa="efficient")):
        found = model(ids).logits
    assert shared and not any(shared)
    torch.testing.assert_close(found, wanted)
    shared.clear()
    model(ids)
    assert all(shared), "afterwards as before"
