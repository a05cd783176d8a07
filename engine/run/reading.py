"""What a worker does after the turns: it reads given texts, and compares what it predicts with what another did."""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from engine.backends import Emit, Session
from engine.event import Phase
from engine.measure.quality import Comparison
from engine.plan import Plan
from engine.refusal import Refusal

MOST_TOKENS = 2048
"""Of the bundled text; it has about as many."""
MOST_ANSWERS = 512
"""Positions of the workload's own answers, all requests together."""
MOST_BYTES = 2**30
"""Of the reference's logits on the disk: 2,048 tokens of a vocabulary of 131,000, fewer of a larger one."""
PATIENCE_S = 60.0
"""A lane that reads slowly stops then, unless it has read fewer than the least number of tokens."""
LEAST_TOKENS = 256
LOGITS, PASSAGES = "logits.f32", "passages.json"

Passage = dict[str, Any]
"""One text: the `part` whose figures it belongs to, the ids of its `beginning`, and the `rest` to be predicted."""


def answer(session: Session, plan: Plan, workload: Any, command: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Do a command of engine.run.judging: keep logits, compare with those that were kept, or look at one place.

    Emits the phase "quality" as it gets on. Raises Refusal for what cannot be read.
    """
    session.load(plan, workload, emit)
    return COMMANDS[command["do"]](session, plan, workload, command, emit)


def passages(session: Any, workload: Any, command: dict[str, Any]) -> list[Passage]:
    """The texts to be read, as many tokens as the disk and the model's context hold."""
    shape = session.architecture
    left = min(MOST_BYTES, _free(Path(command["folder"]))) // (4 * shape.vocabulary)
    found = []
    prompts = session.check(workload)
    for request, tokens in command["answers"] or ():
        rest = tokens[: max(0, min(left // 2, MOST_ANSWERS) - sum(len(one["rest"]) for one in found))]
        if rest:
            found.append({"part": "prompt", "beginning": prompts[request % len(prompts)], "rest": rest})
    left -= sum(len(one["rest"]) for one in found)
    if command["text"]:
        ids = session.tokenizer(command["text"])["input_ids"]
        ids = [token % shape.vocabulary for token in ids[: min(left, MOST_TOKENS, shape.context or MOST_TOKENS)]]
        found.append({"part": "text", "beginning": ids[:1], "rest": ids[1:]})
    if not found or any(not one["rest"] for one in found):
        raise Refusal("There is no room on the disk for the reference's predictions.", "Free a gigabyte.")
    return found


def _free(folder: Path) -> int:
    """Bytes that may be written: half of what the disk has left."""
    return shutil.disk_usage(folder).free // 2


def _keep(session: Any, plan: Plan, workload: Any, command: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Read as the reference: the logits of every position go to a file, in the order of the passages."""
    folder, wanted = Path(command["folder"]), passages(session, workload, command)
    try:
        with (folder / LOGITS).open("wb") as file:
            for logits, _ in _pieces(session, plan, wanted, emit):
                file.write(logits.cpu().contiguous().numpy())
    except OSError as error:
        raise Refusal(f"The reference's predictions could not be written: {error}.", "Free a gigabyte.") from None
    (folder / PASSAGES).write_text(json.dumps(wanted), "utf-8")
    return {}


def _compare(session: Any, plan: Plan, workload: Any, command: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Read the same passages: the figures of each part."""
    folder = Path(command["folder"])
    wanted = json.loads((folder / PASSAGES).read_text("utf-8"))
    parts: dict[str, Comparison] = {}
    with (folder / LOGITS).open("rb") as file:
        for logits, (part, following) in _pieces(session, plan, wanted, emit):
            theirs = _read_back(file, logits)
            parts.setdefault(part, Comparison()).add(logits, theirs, logits.new_tensor(following).long())
    return {part: asdict(comparison.quality()) for part, comparison in parts.items()}


def _read_back(file: BinaryIO, like: Any) -> Any:
    import numpy
    import torch

    rows = numpy.fromfile(file, numpy.float32, like.numel()).reshape(like.shape)
    return torch.from_numpy(rows).to(like.device)


def _pieces(session: Any, plan: Plan, wanted: list[Passage], emit: Emit) -> Iterator[tuple[Any, tuple[str, list[int]]]]:
    """Logits [positions, vocabulary] with the part they belong to and the tokens that really came.

    What a slow lane does not get to is cut off from the last passage.
    """
    total, done, start = sum(len(one["rest"]) for one in wanted), 0, time.perf_counter()
    for one in wanted:
        place = 0
        emit(Phase(time.perf_counter(), "quality", done, total, "tokens"))
        for logits in session.read(plan, one["beginning"], one["rest"]):
            yield logits, (one["part"], one["rest"][place : place + len(logits)])
            place, done = place + len(logits), done + len(logits)
            emit(Phase(time.perf_counter(), "quality", done, total, "tokens"))
            if one is wanted[-1] and place >= LEAST_TOKENS and time.perf_counter() - start > PATIENCE_S:
                one["rest"] = one["rest"][:place]
                break


def _look(session: Any, plan: Plan, workload: Any, command: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """What the model thinks at one place of an answer: the token it prefers, the next best, and one `other`.

    `logits` is how far the best is ahead of the next best, and `probability` by how much more likely it is;
    `behind` is how far, in logits, the best is ahead of the other lane's token.
    """
    emit(Phase(time.perf_counter(), "quality"))
    prompts = session.check(workload)
    prompt, written = prompts[command["request"] % len(prompts)], command["written"]
    *_, last = session.read(plan, prompt, [*written, command["other"]])
    logits = last[-1].double()
    if (banned := session.sampling(workload).banned(logits.device)) is not None:
        logits = logits.index_fill(0, banned, float("-inf"))
    (best, second), places = logits.topk(2)
    shares = logits.softmax(-1)[places]
    say = session.tokenizer.decode
    return {
        "logits": float(best - second),
        "probability": float(shares[0] - shares[1]),
        "behind": float(best - logits[command["other"]]),
        "tokens": places.tolist(),
        "text": [say([token]) for token in places.tolist()],
    }


COMMANDS = {"keep": _keep, "compare": _compare, "look": _look}
