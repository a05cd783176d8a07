"""Names become sources, and every catalogued architecture has its published size."""

from dataclasses import replace

import pytest

from engine.measure.machine import machine
from engine.models.architecture import known
from engine.models.catalogue import MODELS
from engine.models.resolve import resolve
from engine.refusal import Refusal
from engine.spec import Lane, plan_for
from tests.engine.processes import python


def one_sentence(text: str) -> bool:
    return text.endswith(".") and "\n" not in text and "Traceback" not in text


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_an_architecture_has_the_published_number_of_parameters(model):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    values = dict(model.architecture)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(config)
    assert sum(parameter.numel() for parameter in built.parameters()) == model.parameters
    assert config.max_position_embeddings == model.context
    for key, value in values.items():
        if key not in ("rope_parameters", "sliding_window_pattern"):
            read = getattr(config, key)
            assert (str(read).removeprefix("torch.") if key == "dtype" else read) == value, key


def test_a_model_that_comes_quantized_is_known_before_it_is_fetched():
    """Its shape is that of its original; what needs plain weights is refused before anything is fetched."""
    came, original = known("smollm2-135m-gguf"), known("smollm2-135m")
    assert (came.quantized, original.quantized) == ("gguf", None) and replace(came, quantized=None) == original
    assert known("random:smollm2-135m-gguf") == original, "weights drawn at random are plain"
    with pytest.raises(Refusal, match=r"quantized already \(gguf\): choose its original"):
        plan_for(Lane(opts={"bitsandbytes": {"kind": "nf4"}}), "smollm2-135m-gguf", machine())


def test_rotary_frequencies_of_the_real_models():
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    def config(name):
        values = dict(MODELS[name].architecture)
        return AutoConfig.for_model(values.pop("model_type"), **values)

    tiny = {"num_hidden_layers": 1, "vocab_size": 8, "intermediate_size": 8}
    llama = config("llama-3.2-1b")
    llama.update(tiny)
    frequencies = AutoModelForCausalLM.from_config(llama).model.rotary_emb.inv_freq
    assert torch.isclose(frequencies[-1] * 32, torch.tensor(500_000.0 ** -(62 / 64)), rtol=1e-5)
    layers = config("gemma-3-1b").layer_types
    assert [i for i, kind in enumerate(layers) if kind == "full_attention"] == [5, 11, 17, 23]
    assert config("smollm2-1.7b").rope_parameters["rope_theta"] == 130_000


def test_importing_the_names_imports_no_torch():
    code = "import engine.models.fetch, engine.models.load, engine.models.hub, sys\nprint(sorted(sys.modules))"
    imported = python("-c", code).stdout
    assert "engine.models.hub" in imported
    assert not any(f"'{name}'" in imported for name in ("torch", "transformers", "huggingface_hub", "gguf"))


def test_names_that_mean_something(tmp_path, monkeypatch):
    assert resolve(" smollm2-135m ").kind == "embedded"
    assert resolve("Qwen3-0.6B").repo == "Qwen/Qwen3-0.6B"
    assert resolve("random:llama-3.1-8b").model.parameters == 8_030_261_248
    assert resolve("random:smollm2-135m").kind == "random"
    assert resolve("smollm2-135m-gguf").kind == "published"
    assert resolve("Qwen/Qwen3-0.6B").model.id == "qwen3-0.6b"
    assert resolve("acme/My.Model_2").model is None
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_text("")
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    for name in (str(tmp_path), f"./{tmp_path.name}", f"~/{tmp_path.name}"):
        assert resolve(name).path == tmp_path


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "No model is named"),
        ("   ", "No model is named"),
        ("smollm-135m", "smollm2-135m"),
        ("gpt-9", "smollm2-135m, smollm2-135m-gguf, smollm2-360m"),
        ("random:", "random:smollm2-135m"),
        ("random:qwen3-4", "random:qwen3-4b"),
        ("a\0b", "cannot be printed"),
        ("a\nb/c", "cannot be printed"),
        ("x" * 301, "301 characters"),
        ("owner/../etc", "no model id"),
        ("owner/name/more", "no model id"),
        ("owner\\name", "no model id"),
        ("-x/y", "no model id"),
        ("https://example.org/a", "no model id"),
        ("/no/such/folder", "no folder on this machine"),
        ("../../nowhere", "no folder on this machine"),
        ("~nobody-at-all/x", "cannot be opened"),
        ("/" + "x" * 299, "folder"),
    ],
)
def test_names_that_mean_nothing(name, told):
    with pytest.raises(Refusal) as refusal:
        resolve(name)
    assert told in str(refusal.value)
    assert one_sentence(refusal.value.why) and refusal.value.hint and "\n" not in str(refusal.value)


def test_folders_that_cannot_be_loaded(tmp_path):
    with pytest.raises(Refusal, match=r"no config\.json"):
        resolve(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(Refusal, match="holds no safetensors weights"):
        resolve(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_text("")
    with pytest.raises(Refusal, match="pickled weights only"):
        resolve(str(tmp_path))
    with pytest.raises(Refusal, match="Name the folder that holds the file"):
        resolve(str(tmp_path / "config.json"))
