"""Compile the persistent step for an NVIDIA GPU, which needs none: for the shape of SmolLM2-135M, two layers of it."""

import torch
import transformers
import triton
from triton.compiler import ASTSource

from engine.bench.persistent import Staying
from engine.decode.gpu import Steps
from engine.decode.gpu_pass import Weights
from engine.decode.sampling import Sampling
from engine.kernels.persistent import WARPS, _step
from tests.engine.kernel_builds import HOPPER

KINDS = {torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int64: "*i64", torch.int32: "*i32", int: "i32",
         float: "fp32"}  # fmt: skip
SHAPE = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3,
         "num_hidden_layers": 2, "vocab_size": 8192}  # fmt: skip
MULTIPROCESSORS = 132


def main() -> None:
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE)).to(torch.bfloat16)
    step = Staying(model, Steps(Weights(model, "plain", "plain"), 1, 512), Sampling(frozenset(), True))
    step.kernel.programs = MULTIPROCESSORS
    given, constants = step.kernel.given(step.feed, step.peaks, None)
    named = dict(zip((name for name in _step.arg_names if name not in constants), given, strict=True))
    kinds = {name: KINDS[getattr(value, "dtype", type(value))] for name, value in named.items()}
    signature = {name: kinds.get(name, "constexpr") for name in _step.arg_names}
    aligned = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(signature) if "*" in signature[name]}
    options = {"num_warps": WARPS, "launch_cooperative_grid": True}
    made = triton.compile(ASTSource(_step, signature, constants, aligned), target=HOPPER, options=options)
    assert made.asm["cubin"] and made.metadata.launch_cooperative_grid
    assert "ld.global.nc" not in made.asm["ptx"], "such a load may be older than the barrier"
    assert made.asm["ptx"].count("ld.acquire.gpu") == 5 + 2, "one wait for each phase of a layer, two at the end"
    assert made.asm["ptx"].count("ld.global.v4") > 16, "weights are read 16 bytes at a time"
    print("the persistent step compiles")


if __name__ == "__main__":
    main()
