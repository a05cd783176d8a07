"""A model's own weights in fewer bits as its native step's draft: text, cache, what is said, and what is refused."""

from dataclasses import replace

import pytest
import torch
import transformers

from engine.decode.coarse import OwnWeights
from engine.decode.drafting import Drafting
from engine.decode.drafts import Coarse
from engine.decode.loop import decode
from engine.decode.modules import ModuleSession
from engine.decode.native import Native
from engine.decode.prompts import Batch
from engine.decode.sampling import Sampling
from engine.decode.speculate import Verifier
from engine.event import Phase, Step
from engine.plan import Plan
from engine.spec import Workload
from tests.engine.drafting import GREEDY, one_thread, plain, sampled, tokens  # noqa: F401
from tests.engine.test_coarse_plans import drafting, lane
from tests.engine.test_rejection import IMPOSSIBLE, PROMPT, SURE, WORDS, chance, own_shares
from tests.engine.tiny import prompts, tiny
from tests.engine.tiny_models import tiny as saved

NEW = 24
FAMILIES = ("llama", "qwen3")


def asked(kind: str = "int8", guesses: int = 4, adaptive: bool = False, inputs: int = 16, **more) -> Plan:
    return Plan(
        "transformers", "m", native=True, threads=1, cache="static",
        draft={"model": "m", "dtype": "float32", "quantization": None, "packed": {"kind": kind, "inputs": inputs}},
        speculation={"kind": "draft_model", "guesses": guesses, "adaptive": adaptive}, **more,
    )  # fmt: skip


class Both:
    """A model's native step, with its own weights in fewer bits beside it."""

    def __init__(self, model, plan: Plan):
        self.plan, self.model, self.drafting = plan, model, Drafting()
        self.drafting.load(plan, lambda name: None, model)
        self.native = Native(model, plan)

    @torch.inference_mode()
    def guessed(self, prompt, length: int = NEW, sampling: Sampling = GREEDY, room: int = 160, **knobs) -> list[Step]:
        self.stepper = self.native.stepper(self.model, room)
        plan = replace(self.plan, speculation=self.plan.speculation | knobs)
        return self._said(lambda batch, emit: self.drafting.turn(plan, self.stepper, batch, sampling, room, emit),
                          prompt, length)  # fmt: skip

    @torch.inference_mode()
    def alone(self, prompt, length: int = NEW, sampling: Sampling = GREEDY, room: int = 160) -> list[Step]:
        self.stepper = self.native.stepper(self.model, room)
        return self._said(lambda batch, emit: decode(self.stepper, batch, sampling, emit), prompt, length)

    def _said(self, run, prompt, length) -> list[Step]:
        events = []
        run(Batch((0,), (prompt,), (length,)), events.append)
        return [event for event in events if isinstance(event, Step)]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module", params=["int8", "int4"])
def both(family, request):
    return Both(tiny(family), asked(request.param))


def test_greedy_text_is_that_of_the_plain_loop(both, family):
    """With one guess to five, of one number or of an adaptive one, after prompts of many lengths."""
    model = tiny(family)
    for prompt in prompts(1, 2, 15, 16, 17, 33):
        wanted = plain(model, prompt, NEW)
        assert tokens(both.alone(prompt)) == wanted
        for guesses in range(1, 6):
            for adaptive in (False, True):
                assert tokens(both.guessed(prompt, guesses=guesses, adaptive=adaptive)) == wanted
    assert 0 < both.drafting.tally.accepted < both.drafting.tally.drafted, "right and wrong guesses must have been met"


@torch.inference_mode()
def test_what_was_guessed_leaves_no_trace_in_the_shared_cache(both):
    """Each place that counts holds, bit for bit, what the whole model writes there without guesses."""
    for prompt in prompts(3, 20):
        both.alone(prompt)
        kept = both.native.decoder.cache.clone()
        both.native.decoder.cache.zero_()
        both.guessed(prompt)
        read = len(prompt) + NEW - 1
        assert both.drafting.draft.part.decoder.cache is both.native.decoder.cache
        assert both.stepper.length == read
        for found, wanted in zip(lines(both.native, read), lines(both.native, read, kept), strict=True):
            assert torch.equal(found, wanted)


def lines(native: Native, places: int, cache: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of the first places; keys lie in blocks of 16, [length / 16][dim][16]."""
    cache = native.decoder.cache if cache is None else cache
    keys = cache[:, :, :, 0].unflatten(-2, (-1, 16))
    dim = keys.shape[-1]
    keys = keys.flatten(-2).unflatten(-1, (dim, 16)).transpose(-1, -2).flatten(-3, -2)
    return keys[..., :places, :], cache[:, :, :, 1, :places]


def test_a_stop_among_the_guesses_ends_the_text_there(both):
    """Whatever token ends it, and wherever that stands among what was accepted."""
    (prompt,) = prompts(9)
    text = tokens(both.alone(prompt))
    for stop in dict.fromkeys(text):
        sampling = Sampling(frozenset({stop}), False)
        assert tokens(both.guessed(prompt, sampling=sampling)) == text[: text.index(stop) + 1]
    banned = Sampling(frozenset(text[:3]), True)
    assert tokens(both.guessed(prompt, sampling=banned)) == tokens(both.alone(prompt, sampling=banned))


def test_the_last_place_of_the_context_is_reached(both):
    """A cache with no place to spare: prompt, answer and the guesses of one step."""
    prompt = prompts(8)[0]
    for guesses in (1, 3, 5):
        wanted = both.alone(prompt, length=24, room=32)
        assert tokens(both.guessed(prompt, length=24, room=32, guesses=guesses)) == tokens(wanted)
    assert both.native.decoder.length == 32


def test_a_draft_that_loses_nothing_is_always_right(monkeypatch):
    """So it stands where the text ends, and in the cache of this turn: from another place it would guess otherwise."""
    monkeypatch.setattr("engine.decode.coarse.HEAD", "float32")
    both = Both(tiny("llama"), asked("float32"))
    for room in (64, 160, 64):
        for prompt in prompts(5, 18):
            both.guessed(prompt, room=room)
    assert both.drafting.tally.accepted == both.drafting.tally.drafted > 0


@pytest.mark.parametrize("packed, kind", [(None, "int8"), ({"kind": "int8", "inputs": 16}, "int4")])
def test_beside_packed_weights_the_text_is_theirs(packed, kind):
    both = Both(tiny("llama"), asked(kind, packed=packed, inputs=8))
    for prompt in prompts(1, 18):
        assert tokens(both.guessed(prompt)) == tokens(both.alone(prompt))
    assert both.native.stored() == (packed or {"kind": "float32"})["kind"]


def test_it_holds_no_second_cache_and_no_second_table_of_vectors():
    both = Both(tiny("llama"), asked("int8"))
    both.guessed(prompts(5)[0])
    assert both.drafting.kv_bytes() == 0
    own = both.drafting.own
    assert both.drafting.weights_bytes() == own.bytes() == sum(m.bytes() for m in own.weights.matrices())
    assert len(list(own.weights.matrices())) == 2 * 4 + 1, "four of each layer, and the head"
    assert both.drafting.effective()["draft_format"] == own.kind == "int8"


def little():
    """A model over six tokens whose shapes the native step takes."""
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=WORDS, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, initializer_range=0.35, tie_word_embeddings=False,
        eos_token_id=0, pad_token_id=0, bos_token_id=0,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


@torch.inference_mode()
def drawn(rows: int, loud: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Counts of the first two tokens that follow the prompt, drawn with one guess each, and the model's own shares.

    The draft's last layer is `loud`, so that its shares are not the model's.
    """
    model, coarse, sampling = little(), little(), sampled(7)
    coarse.model.layers[-1].mlp.down_proj.weight.mul_(loud)
    generator = sampling.generator(model.device)
    second = OwnWeights(coarse, asked("int4", inputs=8))
    p = own_shares(model)
    whole = Native(model, asked()).stepper(model, 16, (0,) * rows)
    draft = Coarse(second.stepper(whole), sampling, generator, WORDS)
    whole.prefill(torch.tensor(PROMPT[:-1]).expand(rows, -1))
    draft.part.length = len(PROMPT) - 1
    guesses = draft.chain(torch.full((rows, 1), PROMPT[-1]), 2)
    right, following = Verifier(whole, sampling, generator, 2).check(torch.full((rows, 1), PROMPT[-1]), guesses)
    first = torch.where(right > 0, guesses.ids[:, 0], following)
    later = torch.multinomial(p[1][first], 1, generator=generator)[:, 0]
    then = torch.where(right > 1, guesses.ids[:, 1], torch.where(right == 1, following, later))
    return torch.bincount(first * WORDS + then, minlength=WORDS**2), (p[0][:, None] * p[1]).flatten()


def test_sampled_text_has_the_models_own_distribution(monkeypatch):
    """And a guess that were kept whatever the model says of it would be seen."""
    assert chance(*drawn(20_000, 1.5)) > SURE
    monkeypatch.setattr("engine.decode.rejection.keeps", lambda p, q, luck: torch.ones_like(luck, dtype=torch.bool))
    assert chance(*drawn(20_000, 1.5)) < IMPOSSIBLE


def test_the_lane_reports_what_really_guessed(tmp_path):
    """By the session that a worker runs, from the folder of a model to what is read back."""
    folder = saved("llama", tmp_path)
    workload = Workload(prompts=("Say the word lamp.",), max_new_tokens=16, chat=False)
    texts = []
    for opts in (drafting(guesses=3), {"native_step": {}}):
        made, session, events = lane(opts, str(folder)), ModuleSession(), []
        session.prepare(made, workload, events.append)
        assert ("quantize" in [e.name for e in events if isinstance(e, Phase)]) == bool(made.draft)
        events.clear()
        session.run(made, workload, events.append)
        texts.append(tokens([event for event in events if isinstance(event, Step)]))
        assert not made.unmet(session.effective())
        if made.draft:
            found = session.effective()
            assert 0 < found["speculation"]["accepted"] <= found["speculation"]["drafted"]
            assert session.memory()["kv"] == session.stepper.kv_bytes()
            assert session.weights > session.native.weights.bytes()
    assert texts[0] == texts[1]
