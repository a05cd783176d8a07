"""A GPU's speculative rounds that feed themselves, against plain decoding; a program, as others here."""

import sys

import torch

from engine.decode.drafting import Drafting
from engine.decode.gpu import GpuStepper, Steps
from engine.decode.gpu_coarse import GpuOwnWeights
from engine.decode.gpu_native import GpuNative
from engine.decode.gpu_rounds import Copied, Rounds, rounds_of
from engine.decode.lookup import Index
from engine.decode.loop import decode
from engine.decode.prompts import Batch
from engine.decode.sampling import Sampling
from engine.decode.stepper import Growing
from engine.plan import Plan
from engine.refusal import Refusal
from tests.engine.said import Said
from tests.engine.tiny import prompts, tiny

DEVICE = sys.argv[1] if len(sys.argv) > 1 else "cpu"
GREEDY = Sampling(frozenset(), True)
ROOM = 64
PACKED = {"kind": "int8", "inputs": 16}


def asked(kind: str, guesses: int, **knobs) -> Plan:
    speculation = {"kind": kind, "guesses": guesses, "adaptive": False, **knobs}
    draft = {"model": "m", "dtype": "float32", "quantization": None, "packed": PACKED}
    return Plan("transformers", "m", device="cuda", native=True, cache="static", draft=draft, speculation=speculation)


def made(family: str, plan: Plan) -> tuple[GpuStepper, Drafting]:
    """A stepper of a tiny model, and its drafting."""
    packed, drafting = tiny(family).to(DEVICE), Drafting()
    if plan.speculation["kind"] == "draft_model":
        drafting.own = GpuOwnWeights(packed, plan)
    return GpuNative(packed, plan).stepper(packed, ROOM), drafting


@torch.inference_mode()
def text_is_that_of_the_modules(family: str, plan: Plan, prompt: tuple[int, ...], length: int, turns: int = 1) -> None:
    """Also in a second turn over the same recording; and an end mark ends it, wherever in a round it stands."""
    stepper, drafting = made(family, plan)
    batch, wanted = Batch((0,), (prompt,), (length,)), Said()
    decode(Growing(tiny(family), [0]), batch, GREEDY, wanted)
    for turn in range(turns):
        if turn:
            drafting.rounds[1].sampling = Sampling(frozenset(wanted.tokens[0][-2:-1]), False)
        said, again = Said(), GpuStepper(stepper.model, stepper.steps, [0])
        drafting.start()
        drafting.turn(plan, again, batch, GREEDY, ROOM, said)
        ran = drafting.effective()["speculation"]
        assert ran["guesses"] == min(plan.speculation["guesses"], ran["room"]), ran
        assert ran.get("ngram") == plan.speculation.get("ngram") and ran["schedule"] == "constant"
        kept, tally = wanted.tokens[0][: length - 1] if turn else wanted.tokens[0], drafting.tally
        assert said.tokens[0] == kept, f"{family}, {plan.speculation}: {said.tokens}, not {kept}"
        assert drafting.rounds[1].launched >= tally.asked > 0, "the rounds have fed themselves"
        assert tally.draft_s is None and ran["kind"] == plan.speculation["kind"]
        assert tally.accepted > 0 if plan.speculation["kind"] == "draft_model" else tally.drafted > 0
        print(f"{family} {plan.speculation['kind']}: {tally.accepted} of {tally.drafted} guesses right")


@torch.inference_mode()
def lookup_finds_what_the_host_finds() -> None:
    """On texts of few different tokens, where nearly everything occurred before, and on one of new ones only."""
    model = tiny("llama").to(DEVICE)
    steps = Steps(GpuNative(model, Plan("transformers", "m", native=True)).weights, 1, ROOM)
    draw = torch.Generator().manual_seed(3)
    texts = [torch.randint(1, most, (size,), generator=draw).tolist() for most in (3, 5, 9) for size in (1, 2, 7, 40)]
    for ngram in (1, 3):
        rounds = Rounds(steps, GREEDY, 4, Copied(ngram))
        for text in (*texts, list(range(1, 30))):
            index = Index(ngram)
            index.extend(text)
            rounds.start(text)
            ids, known = rounds.propose(rounds)
            assert ids[: int(known)].tolist() == index.propose(4), f"{ngram} of {text}"


@torch.inference_mode()
def what_is_no_number_is_refused() -> None:
    plan = asked("prompt_lookup", 2, ngram=2)
    stepper, _ = made("llama", plan)
    rounds = rounds_of(plan, stepper, None, GREEDY)
    rounds.start([1, 2, 3])
    stepper.steps.context.cache.fill_(float("nan"))
    rounds.launch_until(0, 2)
    try:
        rounds.read(0)
    except Refusal as refusal:
        assert "not a number" in str(refusal)
    else:
        raise AssertionError("a broken round was read as tokens")


def the_host_looks_on() -> None:
    """Where lengths adapt themselves, where texts are sampled, and where a check were too wide."""
    stepper, _ = made("llama", asked("prompt_lookup", 4, ngram=2))
    sampled = Sampling(frozenset(), True, 1.0, 7)
    assert rounds_of(asked("prompt_lookup", 4, ngram=2), stepper, None, sampled) is None
    assert rounds_of(asked("prompt_lookup", 16, ngram=2), stepper, None, GREEDY) is None
    assert rounds_of(asked("prompt_lookup", 4, ngram=2, adaptive=True), stepper, None, GREEDY) is None


def main() -> None:
    lookup_finds_what_the_host_finds()
    text_is_that_of_the_modules("llama", asked("prompt_lookup", 3, ngram=2), (5, 6, 7, 8, 5, 6, 7, 8, 5), 4)
    text_is_that_of_the_modules("llama", asked("draft_model", 3), prompts(7)[0], 6, turns=2)
    what_is_no_number_is_refused()
    the_host_looks_on()
    print("every round agrees")


if __name__ == "__main__":
    main()
