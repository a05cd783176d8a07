"""Tensor parallelism: two ranks under torchrun write what one process writes, and none is ever left behind."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from engine.event import Failed, Memory, Step
from engine.measure.machine import machine
from engine.optimizations.tensor_parallel import WITHOUT_PLAN, TensorParallel
from engine.plan import LEASE, Plan
from engine.refusal import Refusal
from engine.run.child import ROOT
from engine.run.pool import Pool
from engine.run.ranks import check
from engine.run.runner import Run
from engine.spec import Lane, Workload, plan_for
from tests.engine.groups import end, events, experiment, finished, gone, run, tokens, wait_until

PROMPTS = ["abcabcabcabcab", "The lamp is lit. The lamp is", "x", "0123456789 " * 6]
TWO = {"tensor_parallel": {"size": 2}}

pytestmark = pytest.mark.skipif(machine().cores < 2, reason="Two ranks need two cores, and this machine has one.")


@pytest.fixture(scope="module")
def pool():
    """One pool for all tests: a warm group of ranks serves every lane that loads the same."""
    pool = Pool()
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def even(tiny_model, tmp_path_factory):
    """The tiny model with one word more, so that two ranks can share its vocabulary."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("even")
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.resize_token_embeddings(model.config.vocab_size + 1, mean_resizing=False)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


def ranks(pool: Pool) -> list[int]:
    """The processes of the warm lane: torchrun and its two ranks."""
    place = LEASE.index("tensor_parallel")
    group = next(child for key, child in pool.idle if key[place] == "2")
    pids = [process.pid for process in psutil.Process(group.process.pid).children(recursive=True)]
    assert len(pids) == 2
    return [group.process.pid, *pids]


@pytest.mark.parametrize(
    ("opts", "more"),
    [({}, {}), ({}, {"temperature": 1.0}), ({}, {"arrivals": "fixed", "rate": 50.0}), ({"batching": {"size": 3}}, {}),
     ({"kv_cache": {"kind": "static"}}, {}), ({"kv_cache": {"kind": "off"}}, {})],
)  # fmt: skip
def test_two_ranks_write_what_one_process_writes(pool, even, opts, more):
    """In float32, token for token, greedy and sampled; and what is said to have run is read from the tensors.

    Seven products in each of two layers are cut, the embedding and the head; the norms are whole on both ranks.
    """
    lanes = {"A": {"device": "cpu", "opts": opts}, "B": {"device": "cpu", "opts": {**opts, **TWO}}}
    work = {"prompts": PROMPTS, "max_new_tokens": 12, **more}
    records = run(experiment(lanes, model=even, **work), pool)
    assert tokens(records, lane=1) == tokens(records, lane=0)
    plain, cut = finished(records, lane=0), finished(records, lane=1)
    assert plain["tensor_parallel"] is None and cut["unmet"] == []
    found = cut["tensor_parallel"]
    assert (found["kind"], found["split"]) == (2, 2 * 7 + 2) and 0.5 < found["local"] < 0.52
    sizes = [max(event.weights for event in events(records, lane) if isinstance(event, Memory)) for lane in (0, 1)]
    assert sizes[0] < sizes[1] < 1.05 * sizes[0]


def test_stop_ends_all_ranks_at_one_step_and_they_stay_warm(pool, even):
    chosen = experiment({"B": {"device": "cpu", "opts": TWO}}, model=even, max_new_tokens=100)
    run(experiment({"B": {"device": "cpu", "opts": TWO}}, model=even), pool)
    before = ranks(pool)
    job, records = Run(chosen, pool), []
    for record in job.records():
        records.append(record)
        if isinstance(record.event, Step):
            job.cancel()
    assert end(records).status == "cancelled"
    assert ranks(pool) == before
    assert len(tokens(run(chosen, pool))[0]) == 100


def test_a_rank_that_dies_fails_the_lane_and_takes_the_others_with_it(pool, even):
    lanes = {"B": {"device": "cpu", "opts": TWO}}
    run(experiment(lanes, model=even), pool)
    pids, records = ranks(pool), []
    for record in Run(experiment(lanes, model=even, max_new_tokens=200), pool).records():
        records.append(record)
        if isinstance(record.event, Step) and not gone(pids[2]):
            os.kill(pids[2], signal.SIGKILL)
    last = end(records)
    assert isinstance(last, Failed) and last.status == "failed" and last.hint and "\n" not in last.why
    assert wait_until(lambda: all(map(gone, pids)))


def test_no_rank_outlives_the_parent(tmp_path):
    """torchrun gives each rank a session of its own; only their lifeline tells them that the parent is gone."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import time\n"
        "from engine.plan import Plan\n"
        "from engine.run.launch import launch\n"
        "print(launch(Plan('transformers', 'm', tensor_parallel=2)).process.pid, flush=True)\n"
        "time.sleep(120)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment)
    torchrun = psutil.Process(int(parent.stdout.readline()))
    assert wait_until(lambda: len(torchrun.children(recursive=True)) == 2, 60)
    family = [torchrun.pid, *(process.pid for process in torchrun.children(recursive=True))]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert wait_until(lambda: all(map(gone, family)), 30)


def test_a_batch_that_fills_by_the_clock_is_refused():
    by_the_clock = Workload(prompts=("a",), arrivals="fixed")
    check(Plan("transformers", "m", tensor_parallel=2), by_the_clock)
    with pytest.raises(Refusal, match="have arrived"):
        check(Plan("transformers", "m", tensor_parallel=2, batch=2), by_the_clock)


def test_heads_that_cannot_be_shared_are_refused():
    with pytest.raises(Refusal, match="9 attention heads and 3 key and value heads, which 2 ranks cannot share"):
        plan_for(Lane(device="cpu", opts=TWO), "smollm2-135m", machine())


def test_a_vocabulary_that_cannot_be_shared_is_refused(tiny_model):
    with pytest.raises(Refusal, match="257 words"):
        plan_for(Lane(device="cpu", opts=TWO), str(tiny_model), machine())


@pytest.mark.parametrize(
    "other", [{"replicas": {}}, {"torch_compile": {}, "kv_cache": {"kind": "static"}}, {"prompt_lookup": {}}]
)
def test_what_rewrites_or_multiplies_the_modules_is_refused(even, other):
    with pytest.raises(Refusal, match=r"does not go with|whole model in one process"):
        plan_for(Lane(device="cpu", opts={**TWO, **other}), str(even), machine())


def test_the_list_of_architectures_without_a_plan_is_transformers_own():
    from transformers import CONFIG_MAPPING

    assert not [kind for kind in WITHOUT_PLAN if getattr(CONFIG_MAPPING[kind], "base_model_tp_plan", None)]


def test_a_model_without_a_plan_is_refused_before_its_weights_are_read(tmp_path):
    from transformers import BioGptConfig

    from engine.models.resolve import Source
    from engine.models.sharded import load_sharded

    BioGptConfig().save_pretrained(tmp_path)
    with pytest.raises(Refusal, match="no plan to cut a biogpt model"):
        load_sharded(Source("m", "folder", tmp_path), tmp_path, Plan("transformers", "m", tensor_parallel=2), {})


def test_ranks_may_share_cores_but_not_without_end():
    """The embedded model has nine heads and three of keys and values: three ranks on two cores."""
    assert plan_for(Lane(device="cpu", opts={"tensor_parallel": {"size": 3}}), "smollm2-135m", machine())
    three = TensorParallel(size=3)
    assert three.settle(Plan("transformers", "m", cores=2)) is None
    assert three.settle(Plan("transformers", "m", cores=1)) == "3 ranks are too many for 1 core: choose at most 2."
    assert "need 3 GPUs" in three.settle(Plan("transformers", "m", device="cuda", cores=8, gpus=2))
