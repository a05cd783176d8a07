"""Lane, Workload, Experiment: frozen, validated, the same from TOML, JSON, widgets and the command line."""

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from engine.backends import Backend
from engine.models.architecture import Architecture, known
from engine.optimizations import Optimization
from engine.part import Part
from engine.plan import Plan
from engine.public import check_model
from engine.refusal import Refusal
from engine.registry import backends, optimizations
from engine.ways import first_way

MAX_LANES = 4
DEFAULT_MODEL = "smollm2-135m"


class Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class Workload(Spec):
    """What is asked of every lane: the same prompts, lengths and sampling."""

    prompts: tuple[str, ...] = Field(min_length=1, max_length=64, description="One request each.")
    system: str = Field("", max_length=20_000, title="System prompt", description="Stands before every prompt.")
    requests: int = Field(
        0, ge=0, le=512, title="Requests", description="How many requests are made of the prompts in turn; 0: one each."
    )
    max_new_tokens: int = Field(64, ge=1, le=4096, description="Tokens to generate for each request.")
    spread: float = Field(
        0.0,
        ge=0,
        lt=1,
        title="Spread of lengths",
        description="0: all answers are equally long. 0.9: each has between a tenth of the new tokens and all of them.",
    )
    fixed_length: bool = Field(True, description="Generate exactly that many tokens: the end mark is suppressed.")
    temperature: float = Field(0.0, ge=0, le=5, description="0 is greedy; above, tokens are sampled.")
    seed: int = Field(0, ge=0, le=2**31, description="Seed of the sampling.")
    chat: bool = Field(True, description="Wrap each prompt in the model's chat template.")
    arrivals: Literal["in turn", "at once", "fixed", "poisson"] = Field(
        "in turn",
        title="Arrivals",
        description="in turn: the next request comes when the engine is free. at once: all come at the start. "
        "fixed, poisson: they come at a rate, evenly or by chance, whether the engine is free or not.",
    )
    rate: float = Field(2.0, ge=0.02, le=1000, title="Rate", description="Requests a second, for fixed and poisson.")
    ttft_limit_ms: float = Field(
        0.0, ge=0, le=600_000, title="TTFT limit", description="For goodput: longest wait for the first token; 0: none."
    )
    tpot_limit_ms: float = Field(
        0.0, ge=0, le=600_000, title="TPOT limit", description="For goodput: longest time per token; 0: none."
    )

    @field_validator("prompts", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else (value,) if isinstance(value, str) else value

    @field_validator("prompts")
    @classmethod
    def _not_empty(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        if any(not prompt.strip() for prompt in prompts):
            raise ValueError("a prompt is empty: write at least one word")
        if any(len(prompt) > 200_000 for prompt in prompts):
            raise ValueError("a prompt is longer than 200,000 characters: shorten it")
        return prompts

    @property
    def count(self) -> int:
        """How many requests this workload makes."""
        return self.requests or len(self.prompts)

    @property
    def open_loop(self) -> bool:
        """Whether requests arrive by the clock, so that latency counts from their arrival."""
        return self.arrivals != "in turn"


class Lane(Spec):
    """One configuration: the backend, the device, and the optimizations that are on."""

    backend: Any = Field("transformers", validate_default=True)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    opts: dict[str, Any] = Field(default_factory=dict)

    @field_validator("backend", mode="before")
    @classmethod
    def _backend(cls, value: Any) -> Backend:
        data = {"name": value} if isinstance(value, str) else value
        if isinstance(data, Backend):
            return data
        if not isinstance(data, dict):
            raise ValueError("a backend is a name, or a table with a name and its knobs")
        part = _known(backends(), data.get("name"), "backend")
        return _configured(part, {knob: value for knob, value in data.items() if knob != "name"})

    @field_serializer("backend")
    def _backend_out(self, backend: Backend) -> Any:
        knobs = backend.model_dump(mode="json", exclude_defaults=True)
        return {"name": backend.name(), **knobs} if knobs else backend.name()

    @field_validator("opts", mode="before")
    @classmethod
    def _opts(cls, value: Any) -> dict[str, Optimization]:
        if not isinstance(value, dict):
            raise ValueError("opts is a table of optimizations")
        made = {name: _optimization(name, knobs) for name, knobs in value.items() if knobs not in (None, False)}
        order = list(optimizations())
        kept = {name: opt for name, opt in made.items() if not (opt.always and opt == type(opt)())}
        return dict(sorted(kept.items(), key=lambda item: order.index(item[0])))

    @field_serializer("opts")
    def _opts_out(self, opts: dict[str, Optimization]) -> dict[str, Any]:
        return {name: opt.knobs() for name, opt in opts.items()}

    def in_effect(self) -> dict[str, Optimization]:
        """The optimizations that are on, those with defaults included."""
        every = {name: part() for name, part in optimizations().items() if part.always}
        order = list(optimizations())
        return dict(sorted({**every, **self.opts}.items(), key=lambda item: order.index(item[0])))

    def exact(self) -> "Lane":
        """The same lane without loss: in float32, with only what changes no token there."""
        kept = {name: exact for name, opt in self.in_effect().items() if (exact := opt.exact())}
        return Lane(backend=self.backend, device=self.device, opts=kept)


class Expectation(Spec):
    """What a preset's author expects, so that a surprise is visible."""

    metric: str
    lane: str
    over: str
    at_least: float | None = None
    at_most: float | None = None


class Experiment(Spec):
    """One to four lanes, one workload, and how many rounds of turns."""

    title: str = Field("", max_length=200)
    why: str = Field("", max_length=2000)
    expect: Expectation | None = None
    model: str = Field(DEFAULT_MODEL, min_length=1, max_length=300)
    rounds: int = Field(8, ge=1, le=64)
    quality: bool = Field(
        True, title="Quality", description="After the turns, read a text in every lossy lane and compare predictions."
    )
    price_per_hour: float = Field(
        0.0, ge=0, le=100_000, title="Price per hour, $",
        description="Of what a lane runs on, for the cost of a million tokens. 0: the list price of renting it.",
    )  # fmt: skip
    workload: Workload
    lanes: dict[str, Lane] = Field(min_length=1)

    @model_validator(mode="after")
    def _sensible(self) -> "Experiment":
        if len(self.lanes) > MAX_LANES:
            raise ValueError(f"lanes: {len(self.lanes)} lanes are too many: compare at most {MAX_LANES} at once")
        for name in self.lanes:
            if not (0 < len(name) <= 24 and name.isprintable() and "." not in name):
                raise ValueError(f"lanes: {name!r} is no lane name: use up to 24 letters or digits, no full stop")
        return self

    @classmethod
    def read(cls, data: dict[str, Any]) -> "Experiment":
        """Validate plain data. Raises Refusal with one sentence that names the address and what would do."""
        try:
            return cls.model_validate(data, strict=True)
        except ValidationError as error:
            raise Refusal(_sentence(error)) from None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `read` is its inverse."""
        return self.model_dump(mode="json")


def load_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refusal(f"{path.name} is not a TOML file: {error}.", "Compare it with a file in presets/.") from None


def plan_for(lane: Lane, model: str, machine: Any, shape: Architecture | None = None) -> Plan:
    """Settle a lane into a plan for this machine. Raises Refusal where something cannot run or cannot go together.

    `shape` is the model's architecture where the caller knows it; otherwise what its name tells is used.
    """
    device = ("cuda" if machine.gpus else "cpu") if lane.device == "auto" else lane.device
    choosers = (opt for opt in lane.opts.values() if opt.ways(device) and opt.supports(lane.backend.name()))
    if chooser := next(choosers, None):
        return first_way(chooser, device, lane, lambda other: plan_for(other, model, machine, shape))
    active = [opt for name, opt in lane.in_effect().items() if opt.supports(lane.backend.name()) or name in lane.opts]
    for name in (model, *(other for opt in active for other in opt.models())):
        check_model(name, bool(machine.gpus))
    if device == "cuda" and not machine.gpus:
        raise Refusal("This machine has no NVIDIA GPU that torch can use.", "Set the device to auto or cpu.")
    shape = shape or (known(model) if lane.backend.needs_model else None)
    capability = float(machine.gpus[0].capability) if machine.gpus else None
    has = {"cores": machine.cores, "gpus": len(machine.gpus), "capability": capability}
    plan = Plan(backend=lane.backend.name(), model=model, device=device, shape=shape, **has)
    lane.backend.settle(plan)
    for opt in active:
        if not opt.supports(plan.backend):
            raise Refusal(
                f"The {type(lane.backend).title} backend does not support this: {opt.title}.",
                "Switch it off, or choose another backend.",
            )
        if sentence := opt.unavailable(machine, shape) or opt.limits(machine, shape):
            raise Refusal(sentence)
        opt.apply(plan)
    for opt in active:
        if sentence := opt.settle(plan):
            raise Refusal(sentence)
    return plan


def _optimization(name: str, knobs: Any) -> Optimization:
    part = _known(optimizations(), name, "optimization")
    if isinstance(knobs, Optimization):
        return knobs
    if knobs is True:
        return part()
    if not isinstance(knobs, dict):
        raise ValueError(f"{name} takes a table of knobs, or true or false")
    return _configured(part, knobs)


def _configured(part: type[Part], knobs: dict[str, Any]) -> Any:
    try:
        return part(**knobs)
    except ValidationError as error:
        problem = error.errors()[0]
        knob = ".".join(str(piece) for piece in problem["loc"])
        if problem["type"] == "extra_forbidden":
            raise ValueError(f"{part.name()} has no knob {knob!r}; it has {', '.join(part.model_fields)}") from None
        raise ValueError(f"{part.name()}.{knob} is {problem['input']!r}: {_lower(problem['msg'])}") from None


def _known(parts: dict[str, Any], name: Any, what: str) -> Any:
    if name not in parts:
        raise ValueError(f"there is no {what} {name!r}; there are {', '.join(parts)}")
    return parts[name]


def _sentence(error: ValidationError) -> str:
    """The first problem as 'address: what is wrong'."""
    problem = error.errors()[0]
    address = ".".join(str(part) for part in problem["loc"])
    text = _lower(problem["msg"].removeprefix("Value error, "))
    if problem["type"] == "extra_forbidden":
        owner, _, _ = address.rpartition(".")
        spec = Workload if owner == "workload" else Lane if owner.startswith("lanes.") else Experiment
        text = f"there is no such key; there are {', '.join(spec.model_fields)}"
    elif not text.startswith(("a ", "there ", "lanes:")) and not isinstance(problem["input"], dict | list | tuple):
        text += f", not {problem['input']!r}"
    if problem["type"] == "value_error" and address.startswith("workload"):
        return f"{text[:1].upper()}{text[1:]}."
    return f"{address}: {text}." if address else f"{text}."


def _lower(text: str) -> str:
    text = text.removeprefix("Input ").removeprefix("Value error, ")
    return text[:1].lower() + text[1:]
