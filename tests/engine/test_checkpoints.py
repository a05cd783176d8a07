"""Checkpoints that come quantized are recognised, loaded where they can be, and shown as what they are in memory."""

import json
import os
import shutil
from pathlib import Path

import gguf as library
import pytest
import torch

from engine.decode.modules import ModuleSession
from engine.measure.machine import machine
from engine.models import load
from engine.models.architecture import known
from engine.models.checkpoint import method
from engine.models.header import read_once
from engine.models.resolve import resolve
from engine.refusal import Refusal
from engine.spec import Lane, Workload, plan_for
from tests.engine.checkpoints import QUANTIZED, gguf, plain
from tests.engine.contract import KEPT, PROMPTS, generate
from tests.engine.plans import planned
from tests.engine.tiny_models import tiny

SHOWN = {
    "bitsandbytes": "nf4",
    "torchao": "int8-weight-only",
    "compressed-tensors": "none (dequantized from compressed-tensors)",
    "fp8": "none (dequantized from fp8)",
}
"""What each is in memory without a GPU."""
WORST = {"bitsandbytes": 0.3, "torchao": 0.03, "compressed-tensors": 0.03, "fp8": 0.1, "gguf": 0.03}


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return plain(tmp_path_factory.mktemp("original") / "plain")


def logits(folder: Path) -> torch.Tensor:
    with torch.inference_mode():
        return loaded(folder)(torch.arange(1, 40)[None]).logits


def loaded(folder: Path):
    return load.load_model(resolve(str(folder)), folder, planned("float32"))


@pytest.mark.parametrize("how", QUANTIZED)
def test_it_is_recognised_loaded_and_shown_as_what_it_is(how, original, tmp_path):
    QUANTIZED[how](original, tmp_path / "made")
    assert known(str(tmp_path / "made")).quantized == how
    model = loaded(tmp_path / "made")
    found = load.effective(model)
    assert found["quantization"]["kind"] == SHOWN[how]
    assert found["quantization"]["layers"] == (0 if "none" in SHOWN[how] else 14)
    whole = load.weights_bytes(loaded(original))
    assert load.weights_bytes(model) < 0.5 * whole or "none" in SHOWN[how]
    exact, mine = logits(original), logits(tmp_path / "made")
    assert 0 < (exact - mine).norm() / exact.norm() < WORST[how]


def test_a_gguf_file_is_a_model_of_its_own(original, tmp_path):
    gguf(original, tmp_path / "small.gguf")
    config = load.read_config(tmp_path)
    assert (method(config), config["model_type"], config["hidden_size"]) == ("gguf", "llama", 128)
    assert load.effective(loaded(tmp_path))["quantization"]["kind"] == "none (dequantized from gguf)"
    exact, mine = logits(original), logits(tmp_path)
    assert 0 < (exact - mine).norm() / exact.norm() < WORST["gguf"]
    tokenizer = load.load_tokenizer(tmp_path)
    assert tokenizer.decode(tokenizer.encode("+,-")) == "+,-"
    shutil.copy(tmp_path / "small.gguf", tmp_path / "another.gguf")
    with pytest.raises(Refusal, match=r"several GGUF files: another\.gguf, small\.gguf"):
        resolve(str(tmp_path))


@pytest.mark.parametrize("opts", [{"native_step": {}}, {"merged_projections": {}}, {"fastest": {}}])
def test_what_a_gguf_file_is_widened_to_is_a_plain_weight_to_every_step(opts, tmp_path):
    whole, folder = tiny("llama", tmp_path / "whole"), tmp_path / "gguf"
    shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    gguf(whole, folder / "small.gguf")
    lanes = Lane(), Lane.model_validate({"opts": opts})
    plain, quick = (generate(folder, lane, prompts=PROMPTS[:6], chat=False) for lane in lanes)
    assert plain == quick
    (session,) = KEPT.values()
    assert session.effective()["quantization"]["kind"] == "none (dequantized from gguf)"


def test_the_header_of_a_gguf_file_is_read_once_while_it_is_loaded(tmp_path, monkeypatch):
    """And anew where the file has changed meanwhile; afterwards nothing is kept."""
    folder, real, read = tmp_path / "gguf", library.GGUFReader, []
    shutil.copytree(whole := tiny("llama", tmp_path), folder)
    file = folder / "small.gguf"
    gguf(whole, file)
    (folder / "model.safetensors").unlink()
    plan, session = plan_for(Lane(), str(folder), machine()), ModuleSession()
    monkeypatch.setattr(real, "__init__", counted(real.__init__, read))
    session.load(plan, Workload(prompts=("a",), max_new_tokens=2, chat=False), lambda event: None)
    assert read == [str(file)] and session.model.came_as == "gguf"
    with read_once(folder):
        table = library.get_tensor_name_map(library.MODEL_ARCH.LLAMA, 2)
        assert library.get_tensor_name_map(library.MODEL_ARCH.LLAMA, 2) is table
        first = library.GGUFReader(file)
        assert library.GGUFReader(file) is first
        os.utime(file, ns=(1, 1))
        assert library.GGUFReader(file) is not first
    assert library.GGUFReader is real


def counted(make, read: list):
    return lambda self, path, *modes: (read.append(str(path)), make(self, path, *modes))[1]


def test_a_broken_gguf_file_is_a_sentence(tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and nothing more")
    with pytest.raises(Refusal, match=r"broken\.gguf cannot be read"):
        load.read_config(tmp_path)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq, which needs a library.*pip install gptqmodel optimum"),
        ({"quant_method": "awq", "bits": 4}, "awq, which needs a library.*pip install gptqmodel"),
        ({"quant_method": "quanto"}, "pip install optimum-quanto"),
        ({"quant_method": "modelopt"}, "by 'modelopt', which transformers cannot read"),
        ({"bits": 4}, "by 'unknown'"),
    ],
)
def test_a_missing_library_is_named_before_weights_are_read(said, told, original, tmp_path):
    config = json.loads((original / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": said}), "utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(Refusal, match=told):
        loaded(tmp_path)


def test_what_is_quantized_is_not_quantized_again(original, tmp_path):
    QUANTIZED["bitsandbytes"](original, tmp_path / "made")
    wanted = planned("float32", "sdpa", {"library": "torchao", "kind": "int8-weight-only"})
    with pytest.raises(Refusal, match="quantized already"):
        load.load_model(resolve(str(tmp_path / "made")), tmp_path / "made", wanted)
