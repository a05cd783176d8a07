"""Trained drafts: their guesses change no text, their few tokens are its own, and without a file there is none."""

from dataclasses import replace

import pytest
import torch

from engine.code.script import script
from engine.code.vllm import vllm
from engine.decode.drafting import Drafting
from engine.decode.drafts import Trained, widen
from engine.decode.loop import decode
from engine.decode.modules import ModuleSession
from engine.decode.native import Native, NativeStepper
from engine.decode.prompts import Batch
from engine.decode.sampling import Sampling
from engine.decode.trained import build, load, save
from engine.distil.training import student
from engine.event import Step
from engine.measure.ceiling import guesser
from engine.measure.formats import formats
from engine.measure.machine import machine
from engine.models import drafts
from engine.models.architecture import known
from engine.plan import Plan
from engine.refusal import Refusal
from engine.registry import optimizations
from engine.spec import Lane, Workload, plan_for
from tests.engine.drafting import GREEDY, ROOM, Guessing, calm, one_thread, plain, plan, sampled, stepper, tokens  # noqa: F401
from tests.engine.tiny import prompts, tiny

NEW = 16
ASKED = {"draft_model": {"model": "trained"}}


@pytest.fixture(scope="module")
def model():
    return calm(tiny("llama"))


@pytest.fixture(scope="module")
def kept(model):
    """Half of the tokens, out of order as they may be, those of what the model writes among them."""
    wrote = {token for prompt in prompts(5, 9) for token in plain(model, prompt, 8)}
    others = [token for token in range(256, 0, -1) if token not in wrote]
    return torch.tensor([*sorted(wrote), *others[: 128 - len(wrote)]])


@pytest.fixture(scope="module")
def file(model, kept, tmp_path_factory):
    """The draft's file: the model's first layer, its norm, and the rows of its head for the kept tokens."""
    path = tmp_path_factory.mktemp("drafts") / "tiny.safetensors"
    save(student(model, (0,), kept), path, {"base": "tiny", "layers": [0]})
    return path


def guessing(model, file, cache="dynamic", **knobs) -> Guessing:
    made = Guessing(model, plan("draft_model", cache, **knobs), load(file, model, torch.float32))
    made.drafting.trained = drafts.described(file)
    return made


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_greedy_text_is_that_of_the_plain_loop(cache, model, file):
    made = guessing(model, file, cache)
    for prompt in prompts(*range(1, 13)):
        assert tokens(made.steps(prompt, NEW)) == plain(model, prompt, NEW)
    found = made.drafting.effective()["speculation"]
    assert 0 < found["accepted"] < found["drafted"], "both right and wrong guesses must have been met"
    assert (found["kind"], found["layers"], found["vocabulary"]) == ("draft_model", 1, 128)


def test_it_guesses_only_tokens_that_it_knows_and_none_that_is_banned(model, kept, file):
    second = load(file, model, torch.float32)
    for banned in (Sampling(frozenset(), True), Sampling(frozenset(kept[:90].tolist()), True)):
        for sampling in (banned, replace(banned, temperature=5.0)):
            parts = (stepper(second, "dynamic"), sampling, sampling.generator(model.device), 257)
            draft = Trained(*parts, kept=kept, facts={})
            draft.begin(prompts(6)[0])
            guesses = draft.propose([*prompts(6)[0], 4], 12)
            allowed = set(kept.tolist()) - set(sampling.stop)
            assert set(guesses.ids.flatten().tolist()) <= allowed
            if guesses.shares is not None:
                assert guesses.shares.shape == (1, 12, 257)
                assert torch.equal((guesses.shares[0, 0] > 0).nonzero()[:, 0], torch.tensor(sorted(allowed)))


def test_its_logits_stand_at_the_places_of_its_tokens(model, kept, file):
    """The narrow head is the whole head, cut: what it says of a token is said of that token's number."""
    second, ids = load(file, model, torch.float32), torch.tensor([[3, 7, 11]])
    wide = widen(second(ids).logits, second.kept, 257)
    states = second.model(ids).last_hidden_state
    assert torch.allclose(wide[..., kept], states @ second.lm_head.weight.T)
    assert wide.isneginf().sum() == 3 * (257 - 128)
    assert second.lm_head.weight[5].sub(model.lm_head.weight[kept[5]]).abs().max() < 0.01


def test_sampled_text_has_the_models_own_distribution(model, file):
    """The share of the second token after 600 draws, with guesses and without, as far as chance allows."""
    prompt, draws = prompts(4)[0], 600
    made = guessing(model, file)
    drawn = torch.zeros(257)
    for seed in range(draws):
        drawn[tokens(made.steps(prompt, 3, sampled(seed, 0.5)))[1]] += 1
    with torch.inference_mode():
        first = torch.softmax(model(torch.tensor([prompt])).logits[0, -1] / 0.5, -1)
        every = torch.tensor([[*prompt, token] for token in range(257)])
        shares = first @ torch.softmax(model(every).logits[:, -1] / 0.5, -1)
    noise = (shares * (1 - shares) / draws).sqrt().sum()
    assert (drawn / draws - shares).abs().sum() < 1.5 * noise


def test_the_embedding_stays_the_whole_models(model, file):
    second = load(file, model, torch.float32)
    assert second.get_input_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    assert sum(weight.numel() for weight in second.parameters()) < sum(
        w.numel() for w in model.model.layers.parameters()
    )
    half = load(file, model, torch.bfloat16)
    assert half(torch.tensor([[1]])).logits.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", [None, "int8"])
def test_beside_a_native_step_the_draft_is_a_native_step_too(kind, file):
    """Its few logits come out of packed weights, and the text is that of the native step alone."""
    packed = kind and {"kind": kind, "inputs": 16}
    asked = replace(plan("draft_model", "static"), native=True, packed=packed, draft={"dtype": "float32"})
    model, drafting = calm(tiny("llama")), Drafting()
    drafting.trained = drafts.described(file)
    drafting.load(asked, lambda name: None, model)
    whole = Native(model, asked)
    for prompt in prompts(1, 5, 9, 17):
        batch, alone, guessed = Batch((0,), (prompt,), (NEW,)), [], []
        with torch.inference_mode():
            decode(whole.stepper(model, ROOM), batch, GREEDY, alone.append)
            drafting.turn(asked, whole.stepper(model, ROOM), batch, GREEDY, ROOM, guessed.append)
        assert steps(guessed) == steps(alone)
    assert 0 < drafting.tally.accepted < drafting.tally.drafted
    assert isinstance(drafting.draft.stepper, NativeStepper)
    assert drafting.native.weights.embedding is whole.weights.embedding, "the table of tokens is there once"
    assert drafting.weights_bytes() > 0


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_draft_that_is_asked_for_in_the_bits_of_its_file_is_loaded_like_any_other(dtype, device, model, file):
    """Beside a native step int8 is how it is packed, not a number format to compute in."""
    asked = plan("draft_model", "static")
    part = optimizations()["draft_model"](model="trained", format="int8")
    asked.model, asked.device, asked.dtype, asked.native = "smollm2-135m", device, dtype, True
    part.apply(asked)
    asked.draft["packed"] = {"kind": "int8", "inputs": 16}
    drafting, whole = Drafting(), calm(tiny("llama")).to(getattr(torch, dtype))
    drafting.trained = drafts.described(file)
    drafting.load(asked, lambda name: None, whole)
    assert asked.draft["dtype"] == dtype and drafting.model.dtype == whole.dtype
    assert drafting.format() == "int8"


def steps(events) -> list[int]:
    return tokens([event for event in events if isinstance(event, Step)])


def planned(opts=ASKED, model="smollm2-135m", backend="transformers") -> Plan:
    return plan_for(Lane(backend=backend, device="cpu", opts=opts), model, machine())


@pytest.fixture
def shipped(monkeypatch, tmp_path, model, kept):
    """A folder of drafts in which one for the embedded model lies, as far as its file says."""
    monkeypatch.setattr(drafts, "FOLDER", tmp_path)
    save(build(model, 1, kept, torch.float32), tmp_path / "smollm2-135m.safetensors", {"layers": [0]})
    return tmp_path


@pytest.mark.parametrize("name", ["smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"])
def test_a_lane_gets_the_draft_of_its_model(name, shipped):
    made = planned(model=name)
    assert made.draft == {"model": "trained", "dtype": "float32", "quantization": None, "layers": 1, "vocabulary": 128}
    assert made.expected["draft_format"] == "float32"
    shape = known(name)
    own, _ = guesser(made, shape, formats(made, shape))
    assert (own.layers, own.vocabulary, own.hidden) == (1, 128, shape.hidden)
    workload = Workload(prompts=("Say it.",))
    for form in (script, vllm):
        assert any("The trained draft" in sentence for sentence in form(made, workload).beyond)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"model": "smollm2-360m"}, "No draft was trained for smollm2-360m. There is one for smollm2-135m."),
        ({"model": "random:smollm2-135m"}, "No draft was trained for random:smollm2-135m."),
        ({"backend": "generate"}, "Pitlane loop"),
        ({"opts": {"draft_model": {"model": "trained", "format": "nf4"}}}, "small as it is"),
    ],
)
def test_where_there_is_no_draft_a_sentence_says_so(change, words, shipped):
    with pytest.raises(Refusal) as refused:
        planned(**change)
    assert words in str(refused.value)


def test_without_its_file_and_with_a_damaged_one_all_else_works(shipped):
    path = shipped / "smollm2-135m.safetensors"
    path.write_bytes(b"no draft")
    with pytest.raises(Refusal, match="damaged"):
        planned()
    path.unlink()
    with pytest.raises(Refusal, match="comes without any"):
        planned()
    assert planned({"draft_model": {}}).draft["model"] == "smollm2-135m"
    assert optimizations()["draft_model"](model="trained").models() == ()


@pytest.mark.model
def test_the_embedded_model_writes_the_same_text_with_a_draft_of_its_own_layers(monkeypatch, tmp_path):
    """From the file to what the lane reports, by the session that a worker runs."""
    monkeypatch.setattr(drafts, "FOLDER", tmp_path)
    workload = Workload(prompts=("Say the word lamp three times.",), max_new_tokens=12)
    plainly, guessed = ModuleSession(), ModuleSession()
    text = written(plainly, planned({}), workload)
    layers = tuple(range(26))  # enough of them to be right without having learnt anything
    second = student(plainly.model, layers, torch.arange(49152))
    save(second, tmp_path / "smollm2-135m.safetensors", {"layers": layers})
    made = planned()
    assert written(guessed, made, workload) == text
    found = guessed.effective()
    assert not made.unmet(found)
    assert 0 < found["speculation"]["accepted"] < found["speculation"]["drafted"]


def written(session: ModuleSession, made: Plan, workload: Workload) -> list[int]:
    events = []
    session.prepare(made, workload, events.append)
    events.clear()
    session.run(made, workload, events.append)
    return steps(events)
