"""A lossless optimization changes no greedy token in float32: twenty prompts, alone and in batches of four."""

import json
import shutil

import pytest

from engine.spec import Lane
from tests.engine.contract import PROMPTS, SESSIONS, Tokens, dear, generate, ids, lossless, settled
from tests.engine.tiny_models import tiny

KINDS = ("llama", "qwen3", "gpt2", "gemma3")
FEW = 6
EMBEDDED = tuple(
    f"{question} {'Please answer briefly. ' * (number % 3)}"
    for number, question in enumerate(
        ["Why is the sky blue?", "Say the word lamp three times.", "Count: one, two, three,", "What is a cache?",
         "Name a colour."] * 4
    )
)  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: tiny(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.fixture(scope="module")
def plain(folders) -> dict[str, Tokens]:
    return {kind: generate(folder, Lane()) for kind, folder in folders.items()}


def lanes(backend: str, case) -> list[Lane]:
    """The optimization alone, and in static batches of four unless it is the batch itself."""
    name, knobs = case
    alone = Lane(backend=backend, opts={name: knobs})
    return (
        [alone] if name == "batching" else [alone, Lane(backend=backend, opts={name: knobs, "batching": {"size": 4}})]
    )


@pytest.mark.parametrize("backend", SESSIONS)
@pytest.mark.parametrize("case", lossless(), ids=ids)
def test_a_lossless_one_changes_no_token(case, backend, folders, plain):
    for kind in KINDS[:1] if dear(case) else KINDS:
        for lane in lanes(backend, case):
            if settled(lane, folders[kind]):
                made = generate(folders[kind], lane)
                assert len(made) == len(PROMPTS)
                assert made == plain[kind], (kind, lane.opts)


SETTINGS = {"repetition_penalty": 1.8, "no_repeat_ngram_size": 2, "suppress_tokens": [5, 6, 7], "eos_token_id": 0}


@pytest.mark.parametrize("opts", [{}, {"prompt_lookup": {}}, {"early_exit": {"layers": 1}}])
def test_generate_chooses_as_the_other_loops_do_whatever_a_checkpoint_asks_of_it(opts, folders, plain, tmp_path):
    penalized = shutil.copytree(folders["llama"], tmp_path / "penalized")
    (penalized / "generation_config.json").write_text(json.dumps(SETTINGS), "utf-8")
    assert generate(penalized, Lane(backend="generate", opts=opts)) == plain["llama"]


@pytest.fixture(scope="module")
def embedded() -> Tokens:
    """What transformers' own generate writes, without any optimization."""
    return generate("smollm2-135m", Lane(backend="generate"), FEW, EMBEDDED)


REAL = [case for case in lossless() if not dear(case) and (not case[1] or case[0] in ("kv_cache", "attention"))]
"""With the embedded model each optimization as it is by default, and every kind of cache and attention."""


@pytest.mark.model
@pytest.mark.parametrize("case", REAL, ids=ids)
def test_the_embedded_model_writes_the_same_tokens(case, embedded):
    for lane in lanes("transformers", case):
        if settled(lane, "smollm2-135m"):
            assert generate("smollm2-135m", lane, FEW, EMBEDDED) == embedded, lane.opts
