"""Guessing changes when tokens come, never which: against the plain loop, on tiny models and the embedded one."""

from contextlib import suppress

import pytest

import engine.decode.early_exit
import engine.decode.stepper
from engine.decode.modules import ModuleSession
from engine.decode.sampling import Sampling
from engine.decode.speculate import Verifier
from engine.event import Step
from engine.measure.machine import machine
from engine.spec import Lane, Workload, plan_for
from tests.engine.contract import full
from tests.engine.drafting import KNOBS, Guessing, calm, near, one_thread, plain, plan, tokens  # noqa: F401
from tests.engine.tiny import prompts, tiny

LENGTHS = range(1, 21)
NEW = 16
SMALL_WINDOW = {"gemma3": {"sliding_window": 8}}
ARCHITECTURES = ("llama", "qwen3", "gpt2", "gemma3", "opt")


@pytest.fixture(scope="module")
def models():
    """A model of each architecture, and a draft for it that is right now and then."""
    made = {name: calm(tiny(name, **SMALL_WINDOW.get(name, {}))) for name in ARCHITECTURES}
    return {name: (model, near(model)) for name, model in made.items()}


@pytest.fixture(scope="module")
def texts(models):
    """Twenty prompts of different lengths with what the plain loop writes after each."""
    asked = prompts(*LENGTHS)
    return {name: [(prompt, plain(model, prompt, NEW)) for prompt in asked] for name, (model, _) in models.items()}


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("kind", KNOBS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_greedy_text_is_that_of_the_plain_loop(name, kind, cache, models, texts):
    model, second = models[name]
    guessing = Guessing(model, plan(kind, cache), second)
    for prompt, text in texts[name]:
        assert tokens(guessing.steps(prompt, NEW)) == text
    found = guessing.drafting.effective()["speculation"]
    assert found["kind"] == kind
    assert 0 < found["accepted"] < found["drafted"], "both right and wrong guesses must have been met"


@pytest.mark.parametrize("kind", KNOBS)
def test_an_adaptive_length_changes_no_token_either(kind, models, texts):
    model, second = models["llama"]
    guessing = Guessing(model, plan(kind, guesses=8, adaptive=True), second)
    for prompt, text in texts["llama"]:
        steps = guessing.steps(prompt, NEW)
        assert tokens(steps) == text
        assert all(step.drafted <= 8 for step in steps)


@pytest.mark.parametrize("kind", KNOBS)
def test_a_text_may_end_anywhere_in_a_step(kind, models, texts):
    model, second = models["llama"]
    guessing = Guessing(model, plan(kind, "static"), second)
    for length in range(1, 12):
        prompt, text = texts["llama"][length]
        steps = guessing.steps(prompt, length)
        assert tokens(steps) == text[:length]
        assert all(step.accepted < max(1, len(step.tokens[0])) for step in steps)


@pytest.mark.parametrize("kind", KNOBS)
def test_an_end_mark_among_right_guesses_ends_the_text_there(kind, models, texts):
    """Each token of the text is the end mark once; what was guessed after it is thrown away."""
    model, second = models["llama"]
    guessing = Guessing(model, plan(kind), second)
    inside = 0
    for prompt, text in texts["llama"][:10]:
        for end in text[2::5]:
            free = Sampling(frozenset({end}), fixed_length=False)
            steps = guessing.steps(prompt, NEW, free)
            assert tokens(steps) == text[: text.index(end) + 1]
            assert steps[-1].accepted <= len(steps[-1].tokens[0])
            inside += steps[-1].accepted == len(steps[-1].tokens[0])
    # what is copied from the text has not been its end so far
    assert inside or kind == "prompt_lookup", "no end mark fell on a right guess, so this test has shown nothing"


def test_a_fixed_length_forbids_the_end_mark_to_model_and_draft_alike(models, texts):
    model, second = models["llama"]
    prompt, text = texts["llama"][3]
    bound = Sampling(frozenset({text[0], text[4]}), fixed_length=True)
    for kind in KNOBS:
        made = tokens(Guessing(model, plan(kind), second).steps(prompt, NEW, bound))
        assert made == plain(model, prompt, NEW, bound)
        assert not set(made) & bound.stop


def test_a_compiled_step_sees_two_widths_only(models, texts):
    model, second = models["llama"]
    widths = set()

    class Fixed(engine.decode.stepper.Preallocated):
        def __init__(self, *args):
            super().__init__(*args)
            self.fixed_width = True

        def step(self, ids):
            widths.add(ids.shape[1])
            return super().step(ids)

    for kind in KNOBS:
        guessing = Guessing(model, plan(kind, "static"), second)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tests.engine.drafting.Preallocated", Fixed)
            patch.setattr("engine.decode.drafting.Preallocated", Fixed)
            for prompt, text in texts["llama"]:
                assert tokens(guessing.steps(prompt, NEW)) == text
    assert widths == {1, 5}


def broken(texts, models, kind: str, cache: str) -> bool:
    """Whether some text differs from the plain loop's."""
    guessing = Guessing(models["llama"][0], plan(kind, cache), models["llama"][1])
    return any(tokens(guessing.steps(prompt, NEW)) != text for prompt, text in texts["llama"])


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("kind", KNOBS)
def test_a_wrong_rollback_is_caught(kind, cache, models, texts, monkeypatch):
    """Sabotage: one token too few is taken back."""
    right = engine.decode.stepper.take_back
    monkeypatch.setattr(engine.decode.stepper, "take_back", lambda layers, n: right(layers, n - 1) if n > 1 else None)
    assert broken(texts, models, kind, cache)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_draft_entries_left_in_the_shared_cache_are_caught(cache, models, texts, monkeypatch):
    """Sabotage: early exit does not take its own entries back before the whole model reads the guesses."""
    monkeypatch.setattr(engine.decode.early_exit, "take_back", lambda layers, n: None)
    with suppress(RuntimeError):  # layers of different lengths do not even fit together
        assert broken(texts, models, "early_exit", cache)


def test_accepting_one_guess_too_many_is_caught(models, texts, monkeypatch):
    """Sabotage: the first wrong guess is kept as well."""
    right = Verifier.choose

    def generous(self, logits, guesses):
        count, following = right(self, logits, guesses)
        return (count + 1).clamp(max=guesses.count), following

    monkeypatch.setattr(Verifier, "choose", generous)
    assert broken(texts, models, "draft_model", "dynamic")


EMBEDDED = (
    "Say the word lamp three times.",
    "Repeat this text word for word: The keeper climbs the steps to the lamp, trims the wick, and lights it.",
)


@pytest.mark.model
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_the_embedded_model_writes_the_same_text_with_every_kind_of_guessing(cache):
    """Also in what a lane reports: the kind that ran, and right guesses among those it made."""
    workload = Workload(prompts=EMBEDDED, max_new_tokens=12)
    session, kept = ModuleSession(), {"kv_cache": {"kind": cache}}
    text = written(session, Lane(opts=kept), workload)
    for opts in ({"prompt_lookup": {}}, {"early_exit": {"layers": 28}}):
        assert written(session, Lane(opts={**kept, **opts}), workload) == text
        assert session.effective()["speculation"]["accepted"] > 0
    own = ModuleSession()
    assert written(own, Lane(opts={**kept, "draft_model": {"model": "self", "format": "bfloat16"}}), workload) == text
    found = own.effective()
    assert found["draft_format"] == "bfloat16"
    assert found["speculation"]["accepted"] > 0.5 * found["speculation"]["drafted"]


def written(session: ModuleSession, lane: Lane, workload: Workload) -> dict[int, list[int]]:
    asked = plan_for(full(lane), "smollm2-135m", machine())
    made: dict[int, list[int]] = {}
    session.prepare(asked, workload, lambda event: None)

    def keep(event) -> None:
        for request, new in zip(event.requests, event.tokens, strict=True) if isinstance(event, Step) else ():
            made.setdefault(request, []).extend(new)

    session.run(asked, workload, keep)
    assert asked.unmet(session.effective()) == []
    return made
