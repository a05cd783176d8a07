"""From what a person wrote to where a model comes from; no network."""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from engine.models.catalogue import EMBEDDED, MODELS, PUBLISHED, Model
from engine.refusal import Refusal

LONGEST = 300
HUB_ID = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?/[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
)
RANDOM = "random:"
PACKAGED: dict[str, Literal["embedded", "published"]] = {EMBEDDED: "embedded", PUBLISHED: "published"}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
WHAT_WORKS = "Name a model of the catalogue, a hub id such as Qwen/Qwen3-0.6B, or a folder such as ./my-model."


@dataclass(frozen=True)
class Source:
    """Where a model comes from: `repo` on the hub, `path` of a folder, `model` where it is catalogued."""

    kind: Literal["embedded", "published", "hub", "folder", "random"]
    name: str
    repo: str | None = None
    path: Path | None = None
    model: Model | None = None


def resolve(name: str) -> Source:
    """Find the source that a name means. Raises Refusal with what exists for a name that means nothing."""
    name = _clean(name)
    if name.startswith(RANDOM):
        return Source("random", name, model=_catalogued(name.removeprefix(RANDOM), RANDOM))
    if name.startswith(("/", "~", ".")):
        return Source("folder", name, path=_folder(name))
    if "/" in name or "\\" in name:
        return _hub(name)
    model = _catalogued(name.lower(), "")
    return Source(PACKAGED.get(model.id, "hub"), model.id, repo=model.repo, model=model)


def _clean(name: str) -> str:
    if not isinstance(name, str) or not name.strip():
        raise Refusal("No model is named.", WHAT_WORKS)
    if len(name) > LONGEST:
        raise Refusal(f"The model's name has {len(name)} characters; {LONGEST} are the most.", WHAT_WORKS)
    if not name.isprintable():
        raise Refusal("The model's name holds characters that cannot be printed.", WHAT_WORKS)
    return name.strip()


def _catalogued(name: str, prefix: str) -> Model:
    if name in MODELS:
        return MODELS[name]
    near = [prefix + match for match in get_close_matches(name, MODELS, n=3, cutoff=0.6)]
    hint = (
        f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(prefix + known for known in MODELS)}."
    )
    if not prefix:
        hint += " A hub id has the form owner/name, a folder starts with / or ~ or a full stop."
    raise Refusal(f"There is no model {prefix + name!r}.", hint)


def _hub(name: str) -> Source:
    if not HUB_ID.fullmatch(name) or ".." in name or "--" in name or name.endswith(".git"):
        raise Refusal(f"{name!r} is no model id of the hub.", WHAT_WORKS)
    known = next((model for model in MODELS.values() if model.repo == name), None)
    return Source("hub", name, repo=name, model=known)


def _folder(name: str) -> Path:
    try:
        path = Path(name).expanduser().resolve()
        found = path.is_dir()
    except (OSError, RuntimeError) as error:
        raise Refusal(f"The folder {name!r} cannot be opened: {error}.", WHAT_WORKS) from None
    if not found:
        hint = "Name the folder that holds the file." if path.is_file() else "Check the path."
        raise Refusal(f"{name!r} is no folder on this machine.", hint)
    check_folder(path)
    return path


def check_folder(path: Path) -> None:
    """Raises Refusal unless the folder holds a config.json and safetensors weights, or one GGUF file."""
    if gguf_file(path):
        return
    if not (path / "config.json").is_file():
        raise Refusal(
            f"The folder {path} has no config.json.",
            "Name a folder as transformers' save_pretrained writes it.",
        )
    if any(path.glob("*.safetensors")):
        return
    pickled = any(file.suffix in PICKLES for file in path.iterdir())
    why = "holds pickled weights only, which can run code" if pickled else "holds no safetensors weights"
    raise Refusal(f"The folder {path} {why}.", "Save the model again with save_pretrained, which writes safetensors.")


def gguf_file(path: Path) -> Path | None:
    """The GGUF file that a folder without safetensors is loaded from. Raises Refusal if there are several."""
    files = sorted(path.glob("*.gguf"))
    if not files or any(path.glob("*.safetensors")):
        return None
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:4])
        raise Refusal(f"The folder {path} holds several GGUF files: {names}.", "Leave one of them in the folder.")
    return files[0]
