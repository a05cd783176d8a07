"""Random weights of a real architecture: its config, and a tokenizer that fits its vocabulary."""

import json
import shutil
from pathlib import Path
from typing import Any

from engine.models import cache
from engine.models.catalogue import Model
from engine.models.convert import write_config, write_json

SEED = 0


def random_folder(model: Model, embedded: Path) -> Path:
    """A folder with the config of `model` and the embedded model's tokenizer, fitted to its vocabulary."""
    folder = cache.folder() / f"random-{model.id}"
    origin = json.dumps([model.architecture, cache.sha256(embedded / "tokenizer.json"), "v1"])
    with cache.lock(cache.folder() / f"{folder.name}.lock"):
        if not cache.whole(folder, origin):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            _write(model, embedded, folder)
            cache.mark(folder, origin)
    return folder


def _write(model: Model, embedded: Path, folder: Path) -> None:
    ends = json.loads((embedded / "generation_config.json").read_text("utf-8"))
    write_config(folder, {**model.architecture, **ends})
    tokenizer = json.loads((embedded / "tokenizer.json").read_text("utf-8"))
    _fit(tokenizer["model"], model.architecture["vocab_size"])
    write_json(folder / "tokenizer.json", tokenizer)
    settings = json.loads((embedded / "tokenizer_config.json").read_text("utf-8"))
    write_json(folder / "tokenizer_config.json", {**settings, "model_max_length": model.context})


def _fit(bpe: dict[str, Any], size: int) -> None:
    """Cut a byte-pair vocabulary to `size`, or fill it up, so that every id of the model has a text."""
    # ids follow the order of the merges, so the first `size` ids are a tokenizer of their own
    kept = {token: i for token, i in bpe["vocab"].items() if i < size}
    bpe["merges"] = [pair for pair in bpe["merges"] if "".join(pair) in kept]
    # digits stand alone in this tokenizer, so no prompt can contain these
    kept.update({f"Ġ{i}": i for i in range(len(kept), size)})
    bpe["vocab"] = kept


def build(config: Any, dtype: Any, device: str, attention: str) -> Any:
    """The model of `config` with weights drawn from its own initialisation and a fixed seed."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(SEED)
        with torch.device(device):
            return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
