"""transformers' own assisted generation, with the settings that make it guess as much as ours."""

from contextlib import nullcontext

import pytest
from transformers.generation.candidate_generator import AssistedCandidateGenerator

from engine.decode import assisted, generate
from engine.decode.generate import GenerateSession
from engine.decode.modules import ModuleSession
from engine.event import Step
from engine.measure.machine import machine
from engine.models.load import load_model
from engine.models.resolve import resolve
from engine.optimizations import early_exit
from engine.refusal import Refusal
from engine.spec import Lane, Workload, plan_for
from tests.engine.plans import planned
from tests.engine.tiny_models import tiny

PROMPTS = ("abcabcabcabcab", "The lamp is lit. The lamp is", "x")
KINDS = {"prompt_lookup": {}, "draft_model": {}, "early_exit": {"layers": 1}}


def run(model, opts, session) -> tuple[dict[int, list[int]], dict, list[str]]:
    """The tokens of every request, what ran, and what was asked for but did not run."""
    backend = "generate" if isinstance(session, GenerateSession) else "transformers"
    plan = plan_for(Lane(backend=backend, opts=opts), str(model), machine())
    workload, made = Workload(prompts=PROMPTS, max_new_tokens=16), {}

    def emit(event) -> None:
        for request, new in zip(event.requests, event.tokens, strict=True) if isinstance(event, Step) else ():
            made.setdefault(request, []).extend(new)

    session.prepare(plan, workload, lambda event: None)
    session.run(plan, workload, emit)
    found = session.effective()
    return made, found, plan.unmet(found)


@pytest.mark.parametrize("kind", KINDS)
def test_both_backends_guess_and_write_the_same(kind, tiny_model):
    plain, _, _ = run(tiny_model, {}, ModuleSession())
    for session in (ModuleSession(), GenerateSession()):
        made, found, unmet = run(tiny_model, {kind: {"guesses": 3, **KINDS[kind]}}, session)
        assert made == plain
        assert unmet == []
        assert found["speculation"]["kind"] == kind
        assert 0 <= found["speculation"]["drafted"] <= 3 * found["speculation"]["asked"]
    if kind != "prompt_lookup":
        assert found["speculation"]["drafted"] >= 2 * found["speculation"]["asked"], "it drafts as much as it may"


@pytest.mark.parametrize(("kind", "knobs"), [("draft_model", {"format": "nf4"}), ("early_exit", {"layers": 1})])
def test_an_adaptive_draft_in_generate_stays_within_its_bound(kind, knobs, tiny_model, monkeypatch):
    """generate's own schedule adds two guesses after every step in which all were right, without an end."""
    asked, lengths = {kind: {"guesses": 2, "adaptive": True, **knobs}}, []
    real = AssistedCandidateGenerator.update_candidate_strategy

    def all_right(self, ids, scores, matches):
        real(self, ids, scores, len(scores[0]) - 1)
        lengths.append(self.num_assistant_tokens)

    monkeypatch.setattr(AssistedCandidateGenerator, "update_candidate_strategy", all_right)
    _, found, unmet = run(tiny_model, asked, GenerateSession())
    assert unmet == [] and max(lengths) == 4, "it would guess four next"
    assert found["speculation"]["drafted"] <= 2 * found["speculation"]["asked"]


def test_lookup_in_generate_cannot_adapt(tiny_model):
    """It has no schedule there: asked for one, the library would ignore it."""
    lane = Lane(backend="generate", opts={"prompt_lookup": {"adaptive": True}})
    with pytest.raises(Refusal, match="switch adaptive off"):
        plan_for(lane, str(tiny_model), machine())


@pytest.mark.parametrize("kind", KINDS)
def test_generates_steps_say_how_many_guesses_they_checked(kind, tiny_model, monkeypatch):
    """Right and wrong guesses, and so those at each place of a draft, can be told of both backends' steps."""
    steps = []
    monkeypatch.setattr(generate, "Step", lambda *parts, **more: steps.append(Step(*parts, **more)) or steps[-1])
    session = GenerateSession()
    run(tiny_model, {kind: {"guesses": 3, **KINDS[kind]}}, session)
    warmed = len(steps)
    steps.clear()
    _, found, _ = run(tiny_model, {kind: {"guesses": 3, **KINDS[kind]}}, session)
    assert 0 < len(steps) <= warmed and all(0 <= step.accepted <= step.drafted <= 3 for step in steps)
    assert sum(step.drafted for step in steps) == found["speculation"]["drafted"] > 0
    assert sum(step.accepted + 1 for step in steps) == 16 * len(PROMPTS)


def test_weights_of_the_draft_are_counted(tiny_model):
    alone, both = ModuleSession(), ModuleSession()
    run(tiny_model, {}, alone)
    run(tiny_model, {"draft_model": {}}, both)
    assert alone.memory()["weights"] < both.memory()["weights"] < 2 * alone.memory()["weights"]


def test_a_model_that_generate_cannot_cut_is_refused(tmp_path):
    for kind, cut in (("llama", True), ("opt", False)):
        folder = tiny(kind, tmp_path)
        model = load_model(resolve(str(folder)), folder, planned())
        if cut:
            assisted.check_cut(model)
        else:
            with pytest.raises(Refusal, match="all layers"):
                assisted.check_cut(model)


def test_a_warm_model_is_tried_once_when_a_lane_first_exits_early(tmp_path, monkeypatch):
    monkeypatch.setattr(early_exit, "UNCUT_BY_GENERATE", ())
    tried, real = [], assisted.check_cut
    monkeypatch.setattr(assisted, "check_cut", lambda model: tried.append(model) or real(model))
    for kind, cut in (("llama", True), ("opt", False)):
        folder, session = tiny(kind, tmp_path), GenerateSession()
        run(folder, {}, session)
        assert not tried
        for _ in range(2):
            with nullcontext() if cut else pytest.raises(Refusal, match="all layers"):
                run(folder, {"early_exit": {"layers": 1}}, session)
        assert len(tried) == (1 if cut else 2)
        tried.clear()


def test_a_watch_that_saw_nothing_says_so(tiny_model):
    _, found, _ = run(tiny_model, {}, GenerateSession())
    assert found["speculation"] is None
