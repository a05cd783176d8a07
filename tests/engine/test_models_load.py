"""Folders become models, and what was loaded is read from the modules."""

import json
import shutil
from pathlib import Path

import pytest

from engine.models.fetch import fetch
from engine.models.resolve import resolve
from engine.refusal import Refusal
from tests.engine.plans import planned

QUIET = lambda done, total, unit: None  # noqa: E731


@pytest.mark.parametrize("quantization", [None, "int8", "nf4"])
def test_what_was_loaded_is_read_from_the_modules(tiny, quantization):
    from engine.models.load import effective, load_model, load_tokenizer, weights_bytes

    wanted = {"library": "bitsandbytes", "kind": quantization} if quantization else None
    source = resolve(str(tiny))
    model = load_model(source, fetch(source, QUIET), planned("bfloat16", "eager", wanted))
    found = effective(model)
    assert (found["dtype"], found["attention"], found["device"]) == ("bfloat16", "eager", "cpu")
    assert (found["quantization"] or {}).get("kind") == quantization
    assert (found["quantization"] or {"layers": 14, "of": 15})["layers"] == 14
    assert not model.training and model.generation_config is not None
    embedding, layers, norms = 32 * 64 * 2, 2 * (4 * 64 * 64 + 3 * 64 * 128) * 2, 5 * 64 * 2
    total = weights_bytes(model)
    if quantization is None:
        assert embedding + layers + norms <= total <= embedding + layers + norms + 1024
    else:
        assert total < embedding + layers * (0.6 if quantization == "int8" else 0.4) + norms + 4096
    tokenizer = load_tokenizer(tiny)
    assert tokenizer.pad_token_id == 3 and tokenizer.padding_side == "left"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model_type": "t5", "is_encoder_decoder": True, "architectures": None}, "encoder-decoder"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "no text generator"),
        ({"model_type": "clip", "architectures": ["CLIPModel"]}, "no text generator"),
        ({"model_type": "own", "auto_map": {"AutoModel": "own.Own"}}, "its own code"),
        ({"model_type": "newer-than-this"}, "new to transformers"),
        ({"model_type": None}, "new to transformers"),
    ],
)
def test_models_that_are_refused_before_their_weights_are_read(tiny, tmp_path, change, told):
    from engine.models.load import load_model

    config = {**json.loads((tiny / "config.json").read_text()), **change}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(Refusal, match=told):
        load_model(resolve(str(tmp_path)), tmp_path, planned("float32"))


def test_weights_and_settings_that_do_not_fit_are_refused(tiny, tmp_path):
    from engine.models.load import load_model, load_tokenizer

    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    source = resolve(str(copy))
    with pytest.raises(Refusal, match="no quantization"):
        load_model(source, copy, planned("float32", "sdpa", {"library": "bitsandbytes", "kind": "int3"}))
    with pytest.raises(Refusal, match="cannot be loaded like this"):
        load_model(source, copy, planned("float32", "no-such-attention", None))
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(Refusal, match="cannot be loaded like this"):
        load_model(source, copy, planned("float32"))
    (copy / "tokenizer.json").unlink()
    with pytest.raises(Refusal, match="tokenizer"):
        load_tokenizer(copy)


def test_a_message_of_the_library_ends_at_a_sentence(tmp_path):
    from engine.models.load import load_model
    from tests.engine.tiny_models import tiny as saved

    folder = saved("bloom", tmp_path)
    with pytest.raises(Refusal, match="does not support") as refused:
        load_model(resolve(str(folder)), folder, planned("float32", "sdpa"))
    assert refused.value.why.endswith("scaled_dot_product_attention yet.")
