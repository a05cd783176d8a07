"""Course: the whole model writes for a share of the time, then the draft learns for the rest, and is kept."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.decode.trained import save
from engine.distil.prompts import Prompts
from engine.distil.training import Insight, Lesson, Teacher, examine, frequent, student, train
from engine.distil.writer import Manner, Writer, Written
from engine.refusal import Refusal

HEATS = (0.0, 0.5, 0.8, 1.0)
"""Temperatures of the rows, in equal shares."""
ENDLESS = 0.25
"""The share of rows whose answers may not end, as those of a lane of fixed length may not."""
TURNS = 3
SPARE = 12e9
"""Bytes of a GPU that text may not fill: logits of a step, and what training needs."""
TOLD = 5.0  # seconds between two lines about the training
KEPT = 30.0  # seconds between two copies on the way


@dataclass(frozen=True)
class Course:
    """What is written and learnt: rows and tokens at a time, the share of the time that goes to writing."""

    layers: tuple[int, ...]
    vocabulary: int
    rows: int
    length: int
    writing: float
    lesson: Lesson
    seed: int = 0


class Budget:
    """A number of seconds, and how much of it is gone."""

    def __init__(self, seconds: float):
        self.seconds, self.begun = seconds, time.perf_counter()

    def spent(self) -> float:
        """Seconds since it began."""
        return time.perf_counter() - self.begun

    def gone(self) -> float:
        """The share of it that is over."""
        return self.spent() / self.seconds


def take(
    course: Course, whole: Any, tokenizer: Any, path: Path, budget: Budget, facts: dict[str, Any], say: Callable
) -> dict[str, Any]:
    """Write, learn and keep the draft at `path`; returns what its file says of it.

    Raises Refusal for layers that the model has not, and where the time is too short for any text.
    """
    if max(course.layers) >= (depth := whole.config.num_hidden_layers):
        raise Refusal(f"The model has {depth} layers, counted from 0.", f"Set --layers to {depth - 1} or lower.")
    torch.manual_seed(course.seed)
    whole.requires_grad_(False)
    written = write(course, whole, tokenizer, Budget(course.writing * (budget.seconds - budget.spent())), say)
    if not any(bool(text.made[:, :-1].any()) for text in written):
        raise Refusal("In this time the model wrote nothing but its prompts.", "Raise --minutes, or --length.")
    ends = tuple({whole.config.eos_token_id, whole.config.bos_token_id, tokenizer.eos_token_id} - {None})
    vocabulary = whole.config.vocab_size
    kept = frequent(written, min(course.vocabulary, vocabulary), ends, vocabulary)
    facts = {**facts, "layers": course.layers, **_about(course, written, kept)}
    say(f"{facts['vocabulary_share']:.2%} of what was written are the {len(kept)} most frequent tokens.")
    model, teacher = student(whole, course.layers, kept), Teacher(whole, kept)

    def keep(seen: int, found: Insight) -> dict[str, Any]:
        measured = {"seen": seen, "divergence": found.divergence, "agreement": found.agreement}
        save(model, path, said := {**facts, **measured, "seconds": round(budget.spent(), 1)})
        return said

    return _learn(course, model, teacher, written, budget, keep, say)


def write(course: Course, whole: Any, tokenizer: Any, budget: Budget, say: Callable) -> list[Written]:
    """Text in waves of `rows`, until the time is over or the memory full; a wave that is late is cut short."""
    device = whole.device
    writer, prompts = Writer(whole, course.rows, course.length), Prompts(tokenizer, course.seed)
    written: list[Written] = []
    took = 0.0
    with ThreadPoolExecutor(1) as ahead:
        asked = (course.rows, TURNS, max(1, course.length // 2))
        coming = ahead.submit(prompts.turns, *asked)
        while not written or (budget.spent() + took < budget.seconds and _room(device, written[0])):
            turns, sizes = coming.result()
            coming = ahead.submit(prompts.turns, *asked)
            begun = budget.spent()
            manner = _manner(turns.to(device), sizes.to(device))
            written.append(writer.write(manner, tokenizer.eos_token_id, lambda: budget.gone() > 1))
            chosen = int(written[-1].made.sum())  # waits for the device
            took = budget.spent() - begun
            say(f"Wave {len(written)}: {chosen:,} tokens in {took:.1f} s ({chosen / took:,.0f} tokens/s).")
    return written


def _manner(turns: torch.Tensor, sizes: torch.Tensor) -> Manner:
    rows, device = len(sizes), sizes.device
    heat = torch.tensor(HEATS, device=device)[torch.randint(len(HEATS), (rows,), device=device)]
    return Manner(turns, sizes, heat, torch.rand(rows, device=device) < ENDLESS)


def _room(device: torch.device, wave: Written) -> bool:
    """Whether a GPU has room for one more wave; on a CPU the time is what is short."""
    if device.type != "cuda":
        return True
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + held > 2 * wave.states.nbytes + SPARE


def _about(course: Course, written: list[Written], kept: torch.Tensor) -> dict[str, Any]:
    chosen = torch.cat([text.ids[:, 1:][text.made[:, :-1]] for text in written])
    return {
        "written": len(chosen),
        "rows": sum(len(text.ids) for text in written),
        "length": course.length,
        "vocabulary_share": torch.isin(chosen, kept).float().mean().item(),
    }


def _learn(
    course: Course, model: Any, teacher: Teacher, written: list[Written], budget: Budget, keep: Callable, say: Callable
) -> dict[str, Any]:
    _tell(say, 0, budget, examine(model, teacher, written))
    start, seen = budget.gone(), 0
    last = {"told": budget.spent(), "kept": budget.spent()}
    for seen, loss in train(model, teacher, written, course.lesson, lambda: (budget.gone() - start) / (1 - start)):
        now = budget.spent()
        if now - last["told"] > TOLD:
            say(f"{now:6.1f} s: {seen:,} tokens seen, loss {loss:.3f}.")
            last["told"] = now
        if now - last["kept"] > KEPT:
            keep(seen, _tell(say, seen, budget, examine(model, teacher, written)))
            last["kept"] = budget.spent()
    return keep(seen, _tell(say, seen, budget, examine(model, teacher, written)))


def _tell(say: Callable, seen: int, budget: Budget, found: Insight) -> Insight:
    say(
        f"{budget.spent():6.1f} s: {seen:,} tokens seen; on rows kept apart {found.divergence:.3f} nats "
        f"from the whole model, the same choice at {found.agreement:.1%} of the tokens."
    )
    return found
