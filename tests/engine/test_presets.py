"""Presets on a machine with a GPU, by its record alone: larger, every lane allowed, and no two lanes the same."""

from dataclasses import asdict, replace

import pytest

from engine import presets
from engine.measure.machine import Gpu, machine
from engine.measure.verdict import MIN_PAIRS
from engine.presets import FOLDER, preset, read
from engine.refusal import Refusal
from engine.spec import Experiment, plan_for

FILES = sorted(FOLDER.glob("*.toml"))
BARE = replace(machine(), gpus=(), compiler="g++", cores=2)
CARD = replace(BARE, gpus=(Gpu("NVIDIA H200", 141 * 2**30, "9.0", "580"),))
INSTALLED = {"bitsandbytes", "torchao"} <= {name for name, there in machine().packages.items() if there}


def tokens(asked: Experiment) -> int:
    return asked.workload.count * asked.workload.max_new_tokens


def plans(asked: Experiment, on: object) -> list[dict]:
    """What every lane would do, but for those that are refused on a machine without a GPU."""
    made = []
    for lane in asked.lanes.values():
        try:
            made.append(asdict(plan_for(lane, asked.model, on)))
        except Refusal as refusal:
            assert on is BARE and "GPU" in refusal.why, refusal.why
    return made


@pytest.mark.skipif(not INSTALLED, reason="a lane may need a library that is an extra")
@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_preset_is_larger_on_a_gpu_and_its_lanes_still_differ(path):
    """A processor's own question is asked of the processor there too; auto is another number format on a GPU."""
    small, large = read(path, larger=False), read(path, larger=True)
    own = {plan["device"] for plan in plans(large, CARD)} == {"cpu"}
    if any(lane.backend.needs_model for lane in small.lanes.values()):
        assert tokens(large) == tokens(small) if own else tokens(large) >= 3 * tokens(small)
    assert min(small.rounds, large.rounds) >= MIN_PAIRS, "fewer rounds have no verdict"
    assert list(large.lanes) == list(small.lanes) and large.workload.prompts == small.workload.prompts
    for asked, on in ((small, BARE), (large, CARD)):
        found = plans(asked, on)
        assert found and all(one not in found[:place] for place, one in enumerate(found)), "two lanes do the same"


def test_the_machine_decides_and_a_lent_gpu_gets_the_small_question(monkeypatch, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text((FOLDER / "how-much-does-a-batch-gain.toml").read_text("utf-8"), "utf-8")
    sizes = []
    for here in (BARE, CARD, replace(CARD, zero_gpu=True)):
        monkeypatch.setattr(presets, "machine", lambda here=here: here)
        sizes.append((preset(str(file)).lanes["B"].opts["batching"].size, tokens(preset(str(file)))))
    assert sizes == [(4, 128), (32, 768), (4, 128)]
    file.write_text("[cuda]\nnonsense = 1\n" + file.read_text("utf-8").partition("[cuda")[0], "utf-8")
    monkeypatch.setattr(presets, "machine", lambda: CARD)
    with pytest.raises(Refusal):
        preset(str(file))
