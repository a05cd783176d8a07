"""Loading a model cut into shares, one for each rank, by the plan that transformers keeps for its architecture."""

from pathlib import Path
from typing import Any

from engine.models.resolve import Source, check_folder
from engine.plan import Plan
from engine.refusal import Refusal


def load_sharded(source: Source, folder: Path, plan: Plan, local: dict[str, Any]) -> Any:
    """This rank's share of the model. Must run on every rank of one process group at once.

    Raises Refusal for random weights, which are made and not read, and for architectures without a plan.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.distributed import DistributedConfig

    if source.kind == "random":
        raise Refusal("Random weights cannot be cut into shares.", "Choose a model with real weights.")
    config = AutoConfig.from_pretrained(str(folder), **local)
    if not getattr(config.get_text_config(), "base_model_tp_plan", None):
        raise Refusal(
            f"transformers has no plan to cut a {config.model_type} model into shares.",
            "Switch tensor parallelism off, or choose a Llama, Qwen or Mistral model.",
        )
    check_folder(folder)
    return AutoModelForCausalLM.from_pretrained(
        str(folder),
        dtype=plan.dtype,
        attn_implementation=plan.attention,
        distributed_config=DistributedConfig(tp_size=plan.tensor_parallel),
        use_safetensors=True,
        **local,
    )


def shares(model: Any) -> dict[str, Any] | None:
    """How the loaded parameters are cut, read from themselves; None where each is whole.

    `kind` is among how many ranks, `split` how many tensors of all are cut, `local` this rank's part of the bytes.
    """
    every = {own(parameter).data_ptr(): parameter for parameter in model.parameters()}.values()
    split = [parameter for parameter in every if own(parameter).numel() < parameter.numel()]
    if not split:
        return None
    here = sum(own(parameter).nbytes for parameter in every)
    whole = sum(parameter.numel() * parameter.element_size() for parameter in every)
    kind = split[0].device_mesh.size()
    return {"kind": kind, "split": len(split), "of": len(every), "local": round(here / whole, 3)}


def own(tensor: Any) -> Any:
    """The part of a tensor that this rank holds: all of it, unless it is cut."""
    return tensor.to_local() if hasattr(tensor, "device_mesh") else tensor
