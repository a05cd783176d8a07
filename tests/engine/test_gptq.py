"""Checkpoints of GPTQ and AWQ through their library, from the command line, in a process that finds it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.models.architecture import known
from tests.engine.checkpoints import awq, gptq, widened
from tests.engine.tiny_models import tiny

LIBRARY = Path(sys.prefix) / "gptq"
"""Where `make test` installs what tests/gptq.txt names."""
ROOT = Path(__file__).resolve().parents[2]
PROMPT, TOKENS = "to be or not to be or not to", 24
RACE = """
title = "Four bits"
model = "{folder}"
rounds = 1
[workload]
prompts = ["{prompt}"]
chat = false
max_new_tokens = {tokens}
[lanes.loop.opts.precision]
dtype = "float32"
[lanes.static.opts]
precision.dtype = "float32"
kv_cache.kind = "static"
[lanes.guessed.opts]
precision.dtype = "float32"
prompt_lookup.guesses = 3
[lanes.generate]
backend = "generate"
opts.precision.dtype = "float32"
"""
LAYERS = 2 * 7
END = 0
pytestmark = pytest.mark.skipif(not LIBRARY.is_dir(), reason="gptqmodel is not there: make test installs it")


def raced(folder: Path) -> list[dict]:
    """The lanes of a race on this model, as the command line keeps them."""
    race, kept = folder.with_suffix(".toml"), folder.with_suffix(".json")
    race.write_text(RACE.format(folder=folder, prompt=PROMPT, tokens=TOKENS), "utf-8")
    command = (sys.executable, "-m", "engine", "run", str(race), "--json", str(kept))
    there = {**os.environ, "PYTHONPATH": str(LIBRARY)}
    done = subprocess.run(command, cwd=ROOT, env=there, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(kept.read_text("utf-8"))["lanes"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return tiny("llama", tmp_path_factory.mktemp("plain"))


def written(folder: Path) -> list[int]:
    """What a plain checkpoint writes, the whole text read again for every token."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = AutoTokenizer.from_pretrained(folder)(PROMPT, return_tensors="pt").input_ids
    for _ in range(TOKENS):
        logits = model(ids).logits[:, -1:]
        logits[..., END] = -torch.inf  # a race writes as many tokens as it is asked for
        ids = torch.cat((ids, logits.argmax(-1)), 1)
    return ids[0, -TOKENS:].tolist()


@pytest.mark.parametrize(("write", "kind"), [(gptq, "gptq 4-bit"), (awq, "awq 4-bit")])
def test_each_lane_keeps_four_bits_and_writes_what_they_stand_for(write, kind, plain, tmp_path):
    write(plain, tmp_path / "made")
    assert known(str(tmp_path / "made")).quantized == kind.split()[0]
    widened(plain, tmp_path / "widened")
    exact = written(tmp_path / "widened")
    assert exact != written(plain)
    for lane in raced(tmp_path / "made"):
        found = lane["effective"]["quantization"]
        assert (found["kind"], found["layers"], lane["effective"].get("unmet", [])) == (kind, LAYERS, [])
        assert lane["tokens"] == [exact], lane["name"]
