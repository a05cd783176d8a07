"""Distillation: what is written is the model's own text, the draft learns from it, and a file brings it back."""

import pytest
import torch

from engine.decode.trained import load, save
from engine.distil.__main__ import main
from engine.distil.acceptance import TEXTS, measure
from engine.distil.prompts import BLANK, TABLES, Prompts
from engine.distil.training import HELD_OUT, Lesson, Teacher, examine, frequent, student, train
from engine.distil.writer import Manner, Writer
from engine.models.drafts import described
from engine.models.load import load_model, load_tokenizer
from engine.models.resolve import Source
from engine.plan import Plan
from tests.engine.drafting import one_thread, plain  # noqa: F401
from tests.engine.tiny import tiny

END = 0
LENGTH = 24


@pytest.fixture(scope="module")
def model():
    return tiny("llama").requires_grad_(False)


def manner(rows: int, heat: float, endless: bool = True, turns: int = 2, size: int = 3) -> Manner:
    torch.manual_seed(5)
    ids = torch.randint(1, 257, (rows, turns, size))
    sizes = torch.randint(1, size + 1, (rows, turns))
    return Manner(ids, sizes, torch.full((rows,), heat), torch.full((rows,), endless))


def test_the_states_are_those_of_the_models_own_code(model):
    ids = torch.randint(1, 257, (5, 9))
    writer = Writer(model, 5, 9)
    states = torch.stack([writer.step(ids[:, place], place) for place in range(9)], 1)
    assert torch.allclose(states, model.model(ids).last_hidden_state, atol=1e-5)


def test_a_cold_row_is_what_the_plain_loop_writes_after_its_prompt(model):
    asked = manner(6, 0.0)
    written = Writer(model, 6, LENGTH).write(asked, END)
    for row, size in enumerate(asked.sizes[:, 0].tolist()):
        prompt = tuple(asked.turns[row, 0, :size].tolist())
        text = written.ids[row].tolist()
        free = plain(model, prompt, LENGTH - size)
        assert tuple(text[:size]) == prompt
        if END not in free:
            assert text[size:] == free
        assert written.made[row].tolist() == [place >= size - 1 for place in range(LENGTH)]


def test_an_end_brings_the_next_turn_and_a_hot_row_is_drawn_by_its_temperature(model):
    asked = manner(400, 1.0, endless=False)
    written = Writer(model, 400, LENGTH).write(asked, END)
    ended = ((written.ids[:, :-1] == END) & written.made.roll(1, 1)[:, :-1]).nonzero()
    assert len(ended) > 10
    for row, place in ended.tolist():
        assert not written.made[row, place]
        turn = sum(1 for other, before in ended.tolist() if other == row and before <= place) % 2
        assert written.ids[row, place + 1] == asked.turns[row, turn, 0]
    first = asked.turns[:1].expand(4000, -1, -1), asked.sizes[:1].clamp(max=1).expand(4000, -1)
    many = Writer(model, 4000, 2).write(Manner(*first, torch.full((4000,), 0.7), torch.zeros(4000).bool()), END)
    shares = torch.softmax(model(first[0][:1, 0, :1]).logits[0, 0] / 0.7, -1)
    drawn = torch.bincount(many.ids[:, 1], minlength=257) / 4000
    assert (drawn - shares).abs().sum() < 0.25, "as far as 4,000 draws of 257 tokens may be from their shares"


def test_the_draft_learns_and_its_file_brings_it_back(model, tmp_path):
    written = [Writer(model, 2 * HELD_OUT, LENGTH).write(manner(2 * HELD_OUT, 0.0), END)]
    kept = frequent(written, 64, (END,), 257)
    assert END in kept and len(kept) == 64
    draft, teacher = student(model, (1,), kept), Teacher(model, kept)
    before = examine(draft, teacher, written)
    gone = iter(torch.linspace(0, 1, 41).tolist())
    losses = [loss for _, loss in train(draft, teacher, written, Lesson(3e-3, 32 * LENGTH), lambda: next(gone))]
    after = examine(draft, teacher, written)
    assert len(losses) == 40
    assert losses[-1] < losses[0] / 2 and after.divergence < before.divergence
    assert after.agreement >= before.agreement
    save(draft, tmp_path / "llama.safetensors", {"base": "llama", "layers": [1]})
    back = load(tmp_path / "llama.safetensors", model, torch.float32)
    assert described(tmp_path / "llama.safetensors").vocabulary == 64
    for name, weight in draft.state_dict().items():
        largest = weight.abs().amax(-1, keepdim=True) if weight.dim() > 1 else weight.abs()
        assert ((back.state_dict()[name] - weight).abs() <= largest / 127 / 2 + 1e-6).all(), name
    assert torch.equal(back.kept, kept)


def test_prompts_are_in_the_models_own_form_and_none_has_a_blank(tiny_model):
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}<a>"
    prompts = Prompts(tokenizer)
    assert prompts._around() == (("<user>", "<end><a>"), ("<user>", "<end><a>"))
    ids, sizes = prompts.turns(40, 2, 100)
    texts = [tokenizer.decode(row[:size]) for row, size in zip(ids.flatten(0, 1), sizes.flatten(), strict=True)]
    assert not any(BLANK.search(text) for text in texts)
    assert all(text.startswith("<user>") for text in texts[1::2])
    assert sum(text.startswith("<user>") for text in texts[::2]) >= 30
    named = {name for kind in ("openings", "later") for text in TABLES[kind] for name in BLANK.findall(text)}
    assert named - {"passage"} == set(TABLES["words"])
    assert not set(TEXTS.values()) & set(TABLES["openings"])


def test_the_whole_way_from_a_model_to_a_card(tiny_model, tmp_path, capsys):
    small = ["--model", str(tiny_model), "--device", "cpu", "--out", str(tmp_path)]
    sizes = ["--rows", "64", "--length", "48", "--tokens", "480", "--layers", "1", "--vocabulary", "100"]
    assert main(["train", *small, *sizes, "--minutes", "0.03"]) == 0
    assert main(["measure", *small, "--new", "12"]) == 0
    card = (tmp_path / f"{tiny_model.name}.md").read_text()
    said = capsys.readouterr().out
    assert all(f"| {text} |" in card for text in TEXTS)
    assert "the 100 most frequent tokens" in said and "tokens seen" in said
    assert card.count("| yes |") == len(TEXTS), "guesses change no token"


def test_a_draft_that_is_the_whole_model_is_measured_as_always_right(tiny_model, tmp_path):
    """All its layers, all its tokens, and nothing learnt: each step takes every guess and one token more."""
    source = Source("folder", str(tiny_model), path=tiny_model)
    whole = load_model(source, tiny_model, Plan("transformers", str(tiny_model)))
    save(student(whole, (0, 1), torch.arange(257)), tmp_path / "tiny.safetensors", {"layers": [0, 1]})
    accepted = measure(whole, described(tmp_path / "tiny.safetensors"), load_tokenizer(tiny_model), 3, 14)
    assert [one.text for one in accepted] == list(TEXTS)
    assert all(one.length > 2.5 and one.rate > 0.5 and one.same for one in accepted), "but for its 8 bits"


@pytest.mark.parametrize(
    "asked, words",
    [(["--rows", "1", "--length", "1", "--layers", "1"], "--length"), (["--layers", "0", "2"], "2 layers")],
)
def test_what_cannot_be_trained_is_told_in_a_sentence(asked, words, tiny_model, tmp_path, capsys):
    folders = ["--model", str(tiny_model), "--out", str(tmp_path)]
    given = ["train", "--minutes", "0.001", "--device", "cpu", *folders, *asked]
    assert main(given) == 1
    assert words in capsys.readouterr().err
