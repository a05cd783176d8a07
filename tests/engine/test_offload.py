"""Keys and values on the host, on a simulated device: two streams whose copies are late, all of it on the CPU."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from engine.decode.caches import growing_cache, offloaded
from engine.decode.generate import GenerateSession
from engine.decode.sampling import Sampling
from engine.decode.stepper import Growing
from engine.plan import Plan
from tests.engine.tiny import prompts, tiny

DEVICE = "the simulated device"
NEW = 8
LATENESS = ("late", "early")
PLAN = Plan("generate", "m", device="cuda", offload=True, cache="dynamic")


class Stream:
    """Copies in the order in which they were asked for. A `late` stream makes them when another waits for it.

    An early one makes each at once, unless it waits for a stream itself. Until a copy is made its target is NaN.
    """

    main: "Stream"
    current: "Stream"

    def __init__(self, late: bool):
        self.late, self.asked, self.made = late, [], 0

    def ask(self, work: Callable[[], Any]) -> None:
        self.asked.append(work)
        if not self.late:
            self.finish(len(self.asked))

    def finish(self, count: int) -> None:
        """Make the first `count` copies that were asked for."""
        while self.made < count:
            self.made += 1
            self.asked[self.made - 1]()

    def wait_stream(self, other: "Stream") -> None:
        """Whatever is asked of this stream from now on comes after what the other was asked for so far."""
        count = len(other.asked)
        if self is Stream.main:  # what is computed there is computed at once, so it cannot wait later
            other.finish(count)
        else:
            self.ask(lambda: other.finish(count))

    def __enter__(self) -> None:
        self.before, Stream.current = Stream.current, self

    def __exit__(self, *_: Any) -> None:
        Stream.current = self.before


class Unheeded(Stream):
    """What the library takes for the main stream. To wait for it is to wait for nothing: 5.17 does not wait either."""

    def wait_stream(self, other: Stream) -> None:
        Stream.main.wait_stream(other)


@pytest.fixture(params=LATENESS)
def device(request, monkeypatch) -> None:
    """The main stream computes at once and copies to the host as late as it may; the second one copies back."""
    Stream.main = Stream.current = Stream(late=True)
    monkeypatch.setattr(torch, "Stream", lambda: Stream(late=request.param == "late"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: Stream.current)
    monkeypatch.setattr(torch.cuda, "default_stream", lambda device=None: Unheeded(late=True))
    monkeypatch.setattr(torch.Tensor, "to", _moved(torch.Tensor.to))
    update = DynamicLayer.update

    def elsewhere(self, *states: Any, **more: Any) -> tuple:
        found = update(self, *states, **more)
        self.device = DEVICE  # no tensor of this process lies there, so every layer is fetched before it is used
        return found

    monkeypatch.setattr(DynamicLayer, "update", elsewhere)


def _moved(real: Callable) -> Callable:
    """Copies that do not block go through the current stream, and are NaN until it makes them."""

    def to(self, *where: Any, **how: Any) -> torch.Tensor:
        if not how.get("non_blocking") or where[0] not in ("cpu", DEVICE):
            return real(self, *where, **how)
        target = torch.full_like(self, torch.nan)
        Stream.current.ask(lambda: target.copy_(self))
        return target

    return to


def ours(model: Any) -> DynamicCache:
    return growing_cache(model.config, PLAN)


def theirs_with_our_wait(model: Any) -> DynamicCache:
    session = GenerateSession()
    session.model = model
    return session._options(PLAN, NEW, Sampling(frozenset(), True))["past_key_values"]


def unwaited(model: Any) -> DynamicCache:
    return DynamicCache(config=model.config, offloading=True)


@torch.inference_mode()
def logits(model: Any, cache: DynamicCache) -> torch.Tensor:
    """What the loop's own stepper sees after a prompt and some tokens, [steps, vocabulary]."""
    stepper = Growing(model, [0], cache)
    ids = torch.tensor(prompts(40 + NEW))
    rows = [stepper.prefill(ids[:, :40])[0, -1]]
    rows += [stepper.step(ids[:, place : place + 1])[0, -1] for place in range(40, 40 + NEW)]
    return torch.stack(rows)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("make", [ours, theirs_with_our_wait])
def test_on_a_simulated_device_what_is_fetched_has_arrived(kind, make, device):
    """Simulated: no GPU is here. The library's own wait is taken out, ours stays: every number is the plain one."""
    model = tiny(kind)
    assert torch.equal(logits(model, make(model)), logits(model, DynamicCache(config=model.config)))


def test_on_a_simulated_device_the_bug_of_5_17_shows(device):
    """Simulated: without our wait keys are fetched before they have arrived at the host, as seen on an H200."""
    model = tiny("llama")
    found = logits(model, unwaited(model))
    assert not found[0].isnan().any(), "nothing is fetched while a prompt is read"
    assert found[1:].isnan().any()


@torch.inference_mode()
def test_on_a_simulated_device_generate_writes_the_same_text(device):
    """Simulated: transformers' own generate, with our cache and with the library's."""
    model = tiny("llama")
    ids = torch.tensor(prompts(40))
    asked = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False}
    plain = model.generate(ids, **asked)
    assert torch.equal(model.generate(ids, past_key_values=ours(model), **asked), plain)
    assert not torch.equal(model.generate(ids, past_key_values=unwaited(model), **asked), plain)


def test_an_offloaded_cache_is_one_whose_keys_lie_on_the_host(device):
    """The label stands on where the tensors are, not on what the cache calls itself. Simulated: "meta" is a GPU's."""
    model = tiny("llama")
    cache = ours(model)
    assert not offloaded(None) and not offloaded(cache), "nothing was kept yet"
    logits(model, cache)
    assert offloaded(cache)
    fetched, *others = cache.layers
    fetched.keys = fetched.keys.to("meta")
    assert offloaded(cache), "one layer is on its way"
    for layer in others:
        layer.keys = layer.keys.to("meta")
    assert not offloaded(cache)
    plain = DynamicCache(config=model.config)
    logits(model, plain)
    assert not offloaded(plain), "a cache on a CPU is no offloaded one"
