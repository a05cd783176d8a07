"""How a script is laid out: from what its parts said to its text."""

from dataclasses import dataclass, field
from pprint import pformat

from engine.code.form import commented
from engine.decode.prompts import lengths
from engine.models.resolve import resolve
from engine.plan import Plan
from engine.spec import Workload

EMBEDDED = (
    "The model that Pitlane brings was once stored in 4 bits, so the original from the hub writes another text. "
    "For the same one, add --model and the folder that this names: python -m engine.models.embedded"
)


@dataclass
class Script:
    """A script in the making: arguments are Python source by name, `beyond` is what it cannot say."""

    imports: set[str] = field(default_factory=set)
    needs: set[str] = field(default_factory=lambda: {"torch", "transformers", "accelerate"})
    settings: list[str] = field(default_factory=list)
    load: dict[str, str] = field(default_factory=dict)
    draft: dict[str, str] = field(default_factory=dict)
    prepared: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)
    within: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)


def text(made: Script, plan: Plan, workload: Workload, what: str) -> str:
    """The whole script; `what` is its first comment, on one line."""
    notes = [EMBEDDED] * (resolve(plan.model).kind == "embedded") + made.beyond
    head = [
        f"# {what}",
        f"# It needs: pip install {' '.join(sorted(made.needs))}",
        *commented(notes, "What it cannot say, or says otherwise:"),
    ]
    parts = (
        _imports(made), _constants(plan, workload), _arguments(made, plan), made.settings,
        _reading(workload), _models(made), _answers(made, workload), _printed(),
    )  # fmt: skip
    return "\n\n".join("\n".join(part) for part in (head, *parts) if part) + "\n"


def _imports(made: Script) -> list[str]:
    plain = {line for line in made.imports if line.startswith("import ")}
    return ["import argparse", "import json", "", *sorted(plain), *sorted(made.imports - plain)]


def _constants(plan: Plan, workload: Workload) -> list[str]:
    drawn = lengths(workload)
    spelled = repr(drawn) if workload.spread else f"[{workload.max_new_tokens}] * {len(drawn)}"
    return [
        f"PROMPTS = {pformat(list(workload.prompts), width=110)}",
        f"SYSTEM = {workload.system!r}",
        f"LENGTHS = {spelled}  # new tokens of each request; the prompts take turns",
        f"BATCH = {1 if plan.continuous else plan.batch_of(workload.count)}  # requests that share a step",
    ]


def _arguments(made: Script, plan: Plan) -> list[str]:
    lines = ["asked = argparse.ArgumentParser()", _argument("model", plan.model)]
    if made.draft:
        own = plan.draft["model"] == plan.model
        lines.append(_argument("draft", None if own else plan.draft["model"]))
    tokens = 'asked.add_argument("--tokens", action="store_true", help="print token ids as JSON")'
    return [*lines, tokens, "asked = asked.parse_args()"]


def _argument(name: str, model: str | None) -> str:
    """A model by name; without one, the script's own model once more."""
    if model is None:
        return f'asked.add_argument("--{name}", help="a model of the hub, or a folder; the model itself if not named")'
    source = resolve(model)
    repo = source.repo or (source.model.repo if source.model else str(source.path))
    return f'asked.add_argument("--{name}", default={repo!r}, help="a model of the hub, or a folder")'


def _reading(workload: Workload) -> list[str]:
    wrapped = [
        "    if tokenizer.chat_template:",
        '        before = [{"role": "system", "content": SYSTEM}] if SYSTEM else []',
        '        chats = [[*before, {"role": "user", "content": prompt}] for prompt in prompts]',
        "        return tokenizer.apply_chat_template(",
        '            chats, add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"',
        "        )",
    ]
    return [
        'tokenizer = AutoTokenizer.from_pretrained(asked.model, padding_side="left")',
        "tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token",
        "",
        "",
        "def read(prompts):",
        '    """Token ids of a batch, padded on the left."""',
        *(wrapped if workload.chat else []),
        '    texts = [f"{SYSTEM}\\n\\n{prompt}" if SYSTEM else prompt for prompt in prompts]',
        '    return tokenizer(texts, padding=True, return_tensors="pt")',
        "",
    ]


def _models(made: Script) -> list[str]:
    lines = _called("model = AutoModelForCausalLM.from_pretrained", "asked.model", made.load)
    if made.draft:
        lines += _called("draft = AutoModelForCausalLM.from_pretrained", "asked.draft or asked.model", made.draft)
    return [*lines, *made.prepared]


def _answers(made: Script, workload: Workload) -> list[str]:
    fixed = workload.fixed_length
    options = {"max_new_tokens": "max(wanted)", **({"min_new_tokens": "max(wanted)"} if fixed else {}), **made.options}
    loop = [
        "wanted = LENGTHS[first : first + BATCH]",
        "batch = read([PROMPTS[number % len(PROMPTS)] for number in range(first, first + len(wanted))])",
        "batch = batch.to(model.device)",
        *([f"torch.manual_seed({workload.seed})"] if workload.temperature else []),
        *_within(made.within, _called("out = model.generate", "**batch", options)),
        'for row, length in zip(out[:, batch["input_ids"].shape[1] :].tolist(), wanted):',
        f"    answers.append({'row[:length]' if fixed else 'ended(row[:length])'})",
    ]
    looped = ["answers = []", "for first in range(0, len(LENGTHS), BATCH):", *_indented(loop)]
    return looped if fixed else [*ENDED, *looped]


ENDED = [
    "",
    "def ended(row):",
    '    """The tokens up to the end mark, where there is one."""',
    "    ends = model.generation_config.eos_token_id",
    "    ends = ends if isinstance(ends, list) else [ends]",
    "    return row[: next((place + 1 for place, token in enumerate(row) if token in ends), len(row))]",
    "",
    "",
]


def _printed() -> list[str]:
    return [
        "if asked.tokens:",
        "    print(json.dumps(answers))",
        "else:",
        "    for answer in answers:",
        '        print(tokenizer.decode(answer, skip_special_tokens=True), end="\\n\\n")',
    ]


def _called(function: str, first: str, arguments: dict[str, str]) -> list[str]:
    return [f"{function}(", f"    {first},", *(f"    {name}={value}," for name, value in arguments.items()), ")"]


def _within(contexts: list[str], lines: list[str]) -> list[str]:
    return [f"with {', '.join(contexts)}:", *_indented(lines)] if contexts else lines


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" if line else "" for line in lines]
