"""Planted bugs are caught by the comparison that the contract tests make: greedy tokens against the plain loop."""

import pytest
import torch

from engine.decode import stepper
from engine.decode.stepper import Cached, Preallocated, Stepper
from engine.spec import Lane
from tests.engine.contract import KEPT, Tokens, generate
from tests.engine.tiny_models import tiny

KINDS = ("llama", "gpt2")
PROMPTS = ("abcabcabcabcab", "The lamp is lit. The lamp is", "x", "lamp")


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    return tiny(request.param, tmp_path_factory.mktemp("sabotage"))


@pytest.fixture
def plain(folder) -> Tokens:
    """Before the sabotage of the test, that is: fixtures come first."""
    KEPT.clear()
    return generate(folder, Lane(), 16, PROMPTS)


def written(folder, **opts) -> Tokens:
    KEPT.clear()
    return generate(folder, Lane(opts=opts), 16, PROMPTS)


def caught(folder, plain: Tokens, monkeypatch, sabotage, **opts) -> bool:
    """Whether the comparison tells the sound loop from the sabotaged one."""
    assert written(folder, **opts) == plain
    sabotage(monkeypatch)
    return written(folder, **opts) != plain


def late_position(monkeypatch) -> None:
    """Every new token is read one position too late."""
    placed = Cached._placed

    def late(self, ids: torch.Tensor, width: int) -> dict[str, torch.Tensor]:
        found = placed(self, ids, width)
        positions = torch.arange(self.length, self.length + ids.shape[1], device=ids.device)[None]
        return {**found, "position_ids": found.get("position_ids", positions) + (1 if self.length else 0)}

    monkeypatch.setattr(Cached, "_placed", late)


def late_column(monkeypatch) -> None:
    """The first new token is written one column too far, and an empty one is looked at."""
    read = Preallocated.read

    def skip(self, ids: torch.Tensor) -> torch.Tensor:
        logits = read(self, ids)
        for layer in self.cache.layers:
            layer.cumulative_length.add_(1)
        return logits

    monkeypatch.setattr(Preallocated, "read", skip)


def short_rollback(monkeypatch) -> None:
    """One wrong guess too few is taken back from the cache."""
    take_back = stepper.take_back
    monkeypatch.setattr(stepper, "take_back", lambda layers, tokens: take_back(layers, tokens - 1))


def seen_padding(monkeypatch) -> None:
    """Shorter prompts look at their padding."""
    placed = Stepper._placed

    def unmasked(self, ids: torch.Tensor, width: int) -> dict[str, torch.Tensor]:
        found = placed(self, ids, width)
        return {name: torch.ones_like(value) if "mask" in name else value for name, value in found.items()}

    monkeypatch.setattr(Stepper, "_placed", unmasked)


def stale_mask(monkeypatch) -> None:
    """The padding of the first batch is kept for the next one."""
    begin, first = Stepper.__init__, []

    def stale(self, model, pad: list[int]) -> None:
        first.append(pad)
        begin(self, model, first[0])

    monkeypatch.setattr(Stepper, "__init__", stale)


def test_a_position_that_is_off_by_one_is_caught(folder, plain, monkeypatch):
    assert caught(folder, plain, monkeypatch, late_position)


def test_a_static_column_that_is_off_by_one_is_caught(folder, plain, monkeypatch):
    assert caught(folder, plain, monkeypatch, late_column, kv_cache={"kind": "static"})


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_a_wrong_rollback_is_caught(kind, folder, plain, monkeypatch):
    assert caught(folder, plain, monkeypatch, short_rollback, kv_cache={"kind": kind}, prompt_lookup={})


@pytest.mark.parametrize("kind", ["dynamic", "static", "off"])
@pytest.mark.parametrize("sabotage", [seen_padding, stale_mask])
def test_a_stale_mask_is_caught(sabotage, kind, folder, plain, monkeypatch):
    assert caught(folder, plain, monkeypatch, sabotage, kv_cache={"kind": kind}, batching={"size": 2})


def test_a_beginning_that_is_planted_one_token_short_is_caught(folder, monkeypatch):
    from engine.decode import prefix

    plant = prefix._plant

    def short(into, beginning, tokens, batch):
        ids = plant(into, beginning, tokens, batch)
        into.cache.crop(-1)
        into.length -= 1
        return ids

    KEPT.clear()
    prompts = ("The lamp is lit, and so it is.", "The lamp is lit, and so be it.")
    plain = generate(folder, Lane(), 16, prompts)
    assert generate(folder, Lane(opts={"prefix_reuse": {}}), 16, prompts) == plain
    monkeypatch.setattr(prefix, "_plant", short)
    assert generate(folder, Lane(opts={"prefix_reuse": {}}), 16, prompts) != plain
