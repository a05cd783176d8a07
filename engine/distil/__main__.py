"""Train the draft of a model, or measure how far a draft's guesses carry: `python -m engine.distil train`."""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from engine.models.catalogue import EMBEDDED
from engine.models.drafts import FOLDER, described
from engine.refusal import Refusal

LARGE = {"rows": 4096, "length": 384, "tokens": 32_768, "minutes": 4.0}
SMALL = {"rows": 8, "length": 256, "tokens": 2048, "minutes": 180.0}
"""What a GPU is given, and a CPU."""
DEFAULTS = {"cuda": LARGE, "cpu": SMALL}


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 when it is done, 1 with a sentence when it cannot be."""
    asked = _parser().parse_args(arguments)
    try:
        asked.run(asked)
    except Refusal as refusal:
        print(f"{refusal.why} {refusal.hint}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m engine.distil", description=__doc__)
    parts = parser.add_subparsers(required=True, metavar="train|measure")
    train = parts.add_parser("train", help="let a model write, and train a draft on it")
    train.add_argument("--minutes", type=float, help="all the time it may take; on a GPU 4, on a CPU 180")
    train.add_argument("--writing", type=float, default=0.4, help="the share of the time in which text is written")
    train.add_argument("--layers", type=int, nargs="+", default=[0, 29], help="the model's layers that it begins with")
    train.add_argument("--vocabulary", type=int, default=8192, help="how many tokens it can guess")
    train.add_argument("--rows", type=int, help="texts that are written at once")
    train.add_argument("--length", type=int, help="tokens of a text")
    train.add_argument("--tokens", type=int, help="tokens in a step of training")
    train.add_argument("--rate", type=float, default=1e-3, help="the largest step width")
    train.set_defaults(run=_train)
    measure = parts.add_parser("measure", help="measure a draft on five kinds of text, and write its card")
    measure.add_argument("--guesses", type=int, default=4, help="guesses in a step")
    measure.add_argument("--new", type=int, default=96, help="tokens of each text")
    measure.set_defaults(run=_measure)
    for part in (train, measure):
        part.add_argument("--model", default=EMBEDDED, help="a model of the catalogue, or a folder")
        part.add_argument("--device", choices=tuple(DEFAULTS), help="a GPU where there is one")
        part.add_argument("--out", type=Path, default=FOLDER, help="the folder of the draft and its card")
    return parser


def _train(asked: argparse.Namespace) -> None:
    from engine.distil.card import card, keep
    from engine.distil.course import Budget, Course, take
    from engine.distil.training import Lesson

    device, small = _device(asked.device)
    given = {name: getattr(asked, name) or value for name, value in DEFAULTS[device].items()}
    budget = Budget(given["minutes"] * 60)
    whole, tokenizer, name = _loaded(asked, device)
    path = _path(asked.out, name)
    lesson = Lesson(asked.rate, given["tokens"])
    course = Course(tuple(asked.layers), asked.vocabulary, given["rows"], given["length"], asked.writing, lesson)
    facts = {"base": name, "device": small}
    take(course, whole, tokenizer, path, budget, facts, partial(print, flush=True))
    keep(path, card(described(path)))
    print(f"The draft is kept: {path} ({path.stat().st_size / 1e6:.1f} MB).")


def _measure(asked: argparse.Namespace) -> None:
    from engine.distil.acceptance import measure
    from engine.distil.card import card, keep, table

    device, small = _device(asked.device)
    whole, tokenizer, name = _loaded(asked, device)
    path = _path(asked.out, name)
    draft = described(path)
    accepted = measure(whole, draft, tokenizer, asked.guesses, asked.new)
    dtype = str(whole.dtype).removeprefix("torch.")
    found = table(accepted, guesses=asked.guesses, tokens=asked.new, dtype=dtype, device=small)
    keep(path, card(draft, found))
    print(found)


def _device(asked: str | None) -> tuple[str, str]:
    """The device and what it is called. Raises Refusal for a GPU that is not there."""
    import torch

    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise Refusal("No NVIDIA GPU is found here.", "Choose --device cpu, or a machine with a GPU.")
    device = asked or ("cuda" if there else "cpu")
    cores = torch.get_num_threads()
    return device, torch.cuda.get_device_name() if device == "cuda" else f"a CPU with {cores} threads"


def _loaded(asked: argparse.Namespace, device: str) -> tuple[Any, Any, str]:
    """The whole model, its tokenizer, and the name that its draft goes by."""
    from engine.models import load
    from engine.models.fetch import fetch
    from engine.models.resolve import resolve
    from engine.plan import Plan

    source = resolve(asked.model)
    folder = fetch(source, lambda done, total, unit: None)
    dtype = "bfloat16" if device == "cuda" else "float32"
    model = load.load_model(source, folder, Plan("transformers", asked.model, device=device, dtype=dtype))
    if model.config.model_type != "llama":
        raise Refusal(f"{asked.model} is no Llama, and only its drafts can be trained.", "Name a Llama.")
    return model, load.load_tokenizer(folder), source.model.id if source.model else folder.name


def _path(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.safetensors"


if __name__ == "__main__":
    sys.exit(main())
