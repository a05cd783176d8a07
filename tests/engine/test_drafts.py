"""Drafts: what they guess, what they forget, how long they dare, and which of them are refused."""

import random
from dataclasses import replace

import pytest
import torch

from engine.decode.drafting import Drafting
from engine.decode.drafts import EarlyExit, SecondModel
from engine.decode.early_exit import Shallow, first_layers
from engine.decode.lookup import Index
from engine.decode.speculate import DraftLength
from engine.decode.stepper import kv_bytes
from engine.measure.machine import machine
from engine.models.catalogue import MODELS
from engine.models.load import load_tokenizer
from engine.models.resolve import resolve
from engine.optimizations import draft_model
from engine.refusal import Refusal
from engine.registry import optimizations
from engine.spec import Lane, plan_for
from tests.engine.drafting import GREEDY, one_thread, plain, plan, stepper  # noqa: F401
from tests.engine.tiny import prompts, tiny
from tests.engine.tiny_models import tiny as saved

SPECULATION = [name for name, part in optimizations().items() if part.group == "speculation"]


def scanned(tokens: list[int], count: int, ngram: int) -> list[int]:
    """Prompt lookup by reading the whole text backwards."""
    for size in range(min(ngram, len(tokens) - 1), 0, -1):
        for start in range(len(tokens) - size - 1, -1, -1):
            if tokens[start : start + size] == tokens[-size:]:
                return tokens[start + size : start + size + count]
    return []


@pytest.mark.parametrize("words", [1, 2, 5, 40])
@pytest.mark.parametrize("ngram", [1, 2, 4])
def test_the_index_finds_what_a_scan_finds(ngram, words):
    draw = random.Random(words)
    text = [draw.randrange(words) for _ in range(120)]
    index, read = Index(ngram), 0
    while read < len(text):
        more = draw.randint(1, 4)
        index.extend(text[read : read + more])
        read += more
        assert index.propose(5) == scanned(text[:read], 5, ngram)


def test_a_fixed_length_stays_and_an_adaptive_one_follows_the_guesses():
    fixed, adaptive = DraftLength(5, False), DraftLength(6, True)
    lengths = []
    for drafted, accepted in ((3, 3), (5, 5), (6, 6), (6, 5), (5, 0), (0, 0), (4, 1), (3, 0), (2, 0), (1, 0), (1, 1)):
        lengths.append(adaptive.now)
        for length in (fixed, adaptive):
            length.learn(drafted, accepted)
    assert fixed.now == 5
    assert lengths == [3, 5, 6, 6, 5, 4, 4, 3, 2, 1, 1]
    assert adaptive.now == 3


LAST_NORMS = (("model.norm", "transformer.ln_f"), ("decoder.final_layer_norm",))


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "gemma3", "opt", "phi3"])
@torch.inference_mode()
def test_the_first_layers_are_the_models_own(name):
    """Their logits are those of the hidden state after that layer, through the model's norm and head."""
    model = tiny(name)
    cut = first_layers(model, 1)
    ids = torch.tensor(prompts(9))
    state = model(ids, output_hidden_states=True).hidden_states[1]
    norm = next(part for key, part in model.named_modules() if key.endswith(LAST_NORMS[name == "opt"]))
    assert torch.allclose(cut(ids).logits, model.get_output_embeddings()(norm(state)), atol=1e-5)
    assert {weight.data_ptr() for weight in cut.parameters()} < {weight.data_ptr() for weight in model.parameters()}
    assert len(list(model.parameters())) > len(list(cut.parameters())), "the whole model keeps all its layers"


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@torch.inference_mode()
def test_early_exit_leaves_no_trace_in_the_shared_cache(cache):
    model = tiny("llama")
    whole, fresh = stepper(model, cache), stepper(model, cache)
    prompt = prompts(11)
    generator = GREEDY.generator(model.device)
    for one in (whole, fresh):
        one.prefill(torch.tensor(prompt))
    draft = EarlyExit(Shallow(first_layers(model, 1), 1, whole, None), GREEDY, generator, 257)
    assert draft.propose([*prompt[0], 5], 4).count == 4
    after = torch.tensor([[5, 6]])
    assert torch.equal(whole.step(after), fresh.step(after))
    assert kv_bytes(whole.cache) == kv_bytes(fresh.cache)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("right", [0, 1, 2, 3, 4])
@torch.inference_mode()
def test_a_second_model_goes_on_from_what_was_accepted(right, cache):
    """After any number of right guesses its next ones are what it writes after the same text from nothing."""
    model = tiny("qwen3")
    draft = SecondModel(stepper(model, cache), GREEDY, GREEDY.generator(model.device), 257)
    (prompt,) = prompts(7)
    draft.begin(prompt)
    text = [*prompt, 9]
    guesses = draft.propose(text, 4).ids[0].tolist()
    assert guesses == plain(model, tuple(text), 4)
    text += [*guesses[:right], 17]
    draft.accepted(right)
    assert draft.propose(text, 4).ids[0].tolist() == plain(model, tuple(text), 4)


@torch.inference_mode()
def test_a_draft_never_guesses_a_token_that_the_model_does_not_know():
    model = tiny("llama")
    draft = SecondModel(stepper(model, "dynamic"), GREEDY, GREEDY.generator(model.device), 20)
    draft.begin((1, 2, 3))
    assert draft.propose([1, 2, 3, 4], 8).ids.max() < 20


def planned(opts: dict, model: str = "smollm2-135m", backend: str = "transformers"):
    return plan_for(Lane(backend=backend, device="cpu", opts=opts), model, machine())


@pytest.mark.parametrize("name", SPECULATION)
@pytest.mark.parametrize(
    "others, words",
    [({"batching": {}}, "one request at a time"), ({"kv_cache": {"kind": "off"}}, "KV cache")],
)
def test_what_does_not_go_together_is_refused(name, others, words):
    with pytest.raises(Refusal, match=words) as refused:
        planned({name: {}, **others})
    assert refused.value.why.endswith(".")


@pytest.mark.parametrize(
    "opts, backend, words",
    [
        ({"prompt_lookup": {}, "draft_model": {}}, "transformers", "one kind of guessing"),
        ({"draft_model": {}, "early_exit": {}}, "generate", "one kind of guessing"),
        ({"early_exit": {"layers": 30}}, "transformers", "30 layers"),
        ({"early_exit": {}, "kv_cache": {"kind": "static"}}, "generate", "static cache"),
        ({"draft_model": {"format": "float32"}}, "transformers", "fewer bits"),
        ({"draft_model": {"format": "float16"}}, "transformers", "float16"),
        ({"draft_model": {"format": "int8"}, "torch_compile": {}}, "transformers", "compiled"),
    ],
)
def test_settings_that_cannot_run_are_refused_with_a_sentence(opts, backend, words):
    with pytest.raises(Refusal, match=words):
        planned(opts, backend=backend)


def test_a_window_beside_a_draft_needs_a_newer_generate(monkeypatch, tmp_path):
    opts, model = {"draft_model": {"format": "bfloat16"}}, str(saved("gemma3", tmp_path))
    monkeypatch.setattr(draft_model, "version", lambda _: "5.17.0")
    planned(opts, model)
    with pytest.raises(Refusal, match="update transformers"):
        planned(opts, model, "generate")
    monkeypatch.setattr(draft_model, "version", lambda _: "5.100.1")
    planned(opts, model, "generate")


def test_the_draft_belongs_to_what_a_worker_has_loaded():
    leases = {planned(opts).lease() for opts in ({}, {"draft_model": {}}, {"draft_model": {"format": "nf4"}})}
    assert len(leases) == 3
    assert planned({"prompt_lookup": {}}).lease() == planned({"early_exit": {}}).lease() == planned({}).lease()


@pytest.mark.parametrize("model", [entry for entry in MODELS.values() if entry.draft], ids=lambda entry: entry.id)
def test_the_catalogues_pairs_are_of_one_family(model):
    draft = MODELS[model.draft]
    assert draft.parameters * 2 < model.parameters
    assert draft.architecture["vocab_size"] == model.architecture["vocab_size"]
    assert draft.architecture["model_type"] == model.architecture["model_type"]


@pytest.mark.parametrize(
    "model, knobs, draft, shape",
    [
        ("smollm2-1.7b", {}, "smollm2-135m", "float32"),
        ("random:qwen3-8b", {}, "random:qwen3-0.6b", "float32"),
        ("HuggingFaceTB/SmolLM2-1.7B-Instruct", {}, "smollm2-135m", "float32"),
        ("smollm2-135m", {}, "smollm2-135m", "bfloat16"),
        ("smollm2-1.7b", {"model": "self"}, "smollm2-1.7b", "bfloat16"),
        ("smollm2-1.7b", {"model": "self", "format": "nf4"}, "smollm2-1.7b", "nf4"),
    ],
)
def test_which_draft_an_empty_name_means(model, knobs, draft, shape):
    made = planned({"draft_model": knobs}, model)
    assert (made.draft["model"], made.expected["draft_format"]) == (draft, shape)


def test_another_tokenizer_is_refused_before_any_weight_is_read(tmp_path, tiny_model):
    other = saved("qwen3", tmp_path)
    tokenizer = (other / "tokenizer.json").read_text("utf-8")
    (other / "tokenizer.json").write_text(tokenizer.replace('"!":1,', '"!":2,').replace('"\\"":2,', '"\\"":1,')
                                          .replace('"!": 1,', '"!": 2,').replace('"\\"": 2,', '"\\"": 1,'))  # fmt: skip
    (other / "model.safetensors").write_bytes(b"no weights")
    asked = replace(plan("draft_model"), model=str(tiny_model))
    asked.draft = {"model": str(other), "dtype": "float32", "quantization": None}
    with pytest.raises(Refusal, match="tokenizers"):
        Drafting().find(asked, resolve(str(tiny_model)), tiny_model, load_tokenizer(tiny_model), lambda *_: None)


def test_a_draft_with_a_running_state_is_refused(tmp_path, tiny_model):
    asked = replace(plan("draft_model"), model=str(tiny_model))
    asked.draft = {"model": str(saved("mamba", tmp_path)), "dtype": "float32", "quantization": None}
    with pytest.raises(Refusal, match="running state"):
        Drafting().find(asked, resolve(str(tiny_model)), tiny_model, load_tokenizer(tiny_model), lambda *_: None)


def test_a_draft_that_was_ignored_is_told():
    asked = planned({"draft_model": {}})
    ran = dict(asked.expected)
    ran["speculation"] = {"kind": "draft_model", "guesses": 5, "schedule": "constant", "draft": "self"}
    assert asked.unmet(ran) == []
    assert asked.unmet({**ran, "speculation": None}) == ["Asked for speculation draft_model, but nothing ran."]
    assert Drafting().effective() == {"speculation": None, "draft_format": None}
