"""What lossy caches cost the embedded model: how far its predictions move away from those with a full cache."""

import pytest
import torch

from engine.decode.caches import growing_cache
from engine.decode.sinks import Windowed
from engine.decode.stepper import Cached, Growing
from engine.measure.quality import Quality
from engine.models.fetch import fetch
from engine.models.load import load_model, load_tokenizer
from engine.models.resolve import resolve
from engine.plan import Plan
from engine.presets import preset
from tests.engine.reading import compared

PROMPT, PIECE, TOKENS = 64, 16, 192
pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def model():
    source = resolve("smollm2-135m")
    return load_model(source, fetch(source, lambda *progress: None), Plan("transformers", "smollm2-135m"))


@pytest.fixture(scope="module")
def ids(model) -> torch.Tensor:
    """The first tokens of a story, [1, TOKENS]."""
    tokenizer = load_tokenizer(fetch(resolve("smollm2-135m"), lambda *progress: None))
    story = preset("does-a-window-keep-a-long-text-fast").workload.prompts[0]
    return torch.tensor([tokenizer(story)["input_ids"][:TOKENS]])


@torch.inference_mode()
def read(stepper: Cached, ids: torch.Tensor) -> torch.Tensor:
    """Logits that predict everything after the prompt, read a few tokens at a time."""
    first = stepper.read(ids[:, :PROMPT])[0]
    places = range(PROMPT, TOKENS, PIECE)
    return torch.cat([first, *(stepper.step(ids[:, place : place + PIECE])[0] for place in places)])[:-1]


@pytest.fixture(scope="module")
def full(model, ids) -> torch.Tensor:
    return read(Growing(model, [0]), ids)


def packed(model, ids, full, keys: int, values: int) -> Quality:
    plan = Plan("transformers", "m", kv_bits={"keys": keys, "values": values, "group": 32})
    return compared(read(Growing(model, [0], growing_cache(model.config, plan)), ids), full, ids[0, PROMPT:])


def windowed(model, ids, full, sinks: int, window: int) -> Quality:
    return compared(read(Windowed(model, [0], sinks, window), ids), full, ids[0, PROMPT:])


@pytest.mark.parametrize(
    ("keys", "values", "divergence", "agreement"), [(8, 8, 1e-4, 0.99), (8, 4, 5e-3, 0.96), (4, 4, 2e-2, 0.92)]
)
def test_packed_keys_and_values_move_predictions_little(keys, values, divergence, agreement, model, ids, full):
    found = packed(model, ids, full, keys, values)
    assert 0 < found.kl_mean < divergence
    assert found.top1 >= agreement
    assert 0.95 < found.perplexity_ratio < 1.05


def test_fewer_bits_cost_more(model, ids, full):
    assert packed(model, ids, full, 8, 8).kl_mean < packed(model, ids, full, 4, 4).kl_mean / 10


def test_a_window_without_its_sinks_falls_apart(model, ids, full):
    """Four tokens decide: with them the window stays near the full cache, without them the text is lost."""
    kept, lost = windowed(model, ids, full, 4, 64), windowed(model, ids, full, 0, 64)
    assert kept.kl_mean < 0.5
    assert lost.kl_mean > 3 * kept.kl_mean
    assert lost.top1 < kept.top1


def test_a_wider_window_costs_less(model, ids, full):
    assert windowed(model, ids, full, 4, 112).kl_mean < windowed(model, ids, full, 4, 32).kl_mean
    assert windowed(model, ids, full, 4, 256).kl_mean == pytest.approx(0, abs=1e-6)
