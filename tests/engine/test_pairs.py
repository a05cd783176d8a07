"""Any two optimizations that do not conflict can be on together."""

import pytest

from engine.registry import optimizations
from engine.spec import Lane
from tests.engine.contract import Case, Tokens, configurations, dear, generate, ids, pairs, settled
from tests.engine.tiny_models import tiny

PROMPTS = ("abcabcabcabcab", "The lamp is lit. The lamp is", "x", "lamp")
CASES = [case for case in configurations() if not case[1] or case[0] in ("kv_cache", "attention")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny("llama", tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def plain(folder) -> Tokens:
    return generate(folder, Lane(), prompts=PROMPTS)


def together(one: Case, other: Case) -> Lane:
    return Lane(opts=dict([one, other]))


@pytest.mark.parametrize("case", [case for case in CASES if not dear(case)], ids=ids)
def test_allowed_pairs_run_and_two_lossless_ones_change_no_token(case, folder, plain):
    """Each pair is tried once: with those that come later in the registry."""
    for one, other in pairs([case, *CASES[CASES.index(case) + 1 :]]):
        if one != case or dear(other) or not settled(together(one, other), folder):
            continue
        made = generate(folder, together(one, other), prompts=PROMPTS)
        assert {request: len(new) for request, new in made.items()} == dict.fromkeys(range(4), 12), (one, other)
        if all(optimizations()[name].lossless for name, _ in (one, other)):
            assert made == plain, (one, other)


COMPILED = [*(case for case in CASES if not dear(case) and not case[1]), ("attention", {"kernel": "math"})]
"""What goes with the compiled step; it takes math attention apart, and the label must find that in its loops."""


@pytest.mark.parametrize("case", COMPILED, ids=ids)
def test_pairs_with_the_compiled_step(case, folder, plain):
    lane = together(case, ("torch_compile", {}))
    if settled(lane, folder):
        made = generate(folder, lane, prompts=PROMPTS)
        assert len(made) == 4
        if optimizations()[case[0]].lossless:
            assert made == plain
