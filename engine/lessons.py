"""Lessons: a question, a prediction that the reader commits to, the run that decides it, and what it means."""

from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.address import assign
from engine.measure.metrics import METRICS
from engine.measure.verdict import MIN_PAIRS, Word
from engine.measure.withdrawal import WAITED
from engine.models.catalogue import MODELS
from engine.presets import FOLDER, presets
from engine.refusal import Refusal
from engine.spec import Experiment, Workload, load_toml

UNITS = {"times": "×", "percent": "%"}
NEAR = 0.1
"""A guess within a tenth of what was measured counts as right, as does one within the interval."""

TIMES = {15: "a few seconds", 40: "about half a minute", 65: "about a minute", float("inf"): "one to two minutes"}
"""What is said of a run that takes so many seconds at most."""

Guess = float | str


class Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Prediction(Entry):
    """What the reader is asked: a number between `low` and `high`, or one of several words.

    It is decided by `metric` of `lane` and `over`: as a speed, in times that of `over` (more is faster, whichever way
    the metric counts), or as a share of its value in percent.
    """

    ask: str = Field(min_length=1)
    metric: str
    lane: str
    over: str
    unit: Literal["times", "percent"] = "times"
    low: float = 0.0
    high: float = 0.0
    step: float = 0.1
    choices: tuple[Word, ...] = ()

    @model_validator(mode="after")
    def _answerable(self) -> "Prediction":
        if self.metric not in METRICS:
            raise ValueError(f"there is no metric {self.metric}; there are {', '.join(METRICS)}")
        if not self.choices and not (self.low < self.high and self.step > 0):
            raise ValueError("it needs choices, or low, high and step with low below high")
        if self.choices and (len(self.choices) < 2 or self.high or "cannot tell" in self.choices):
            raise ValueError("choices are two or three of faster, same, slower, and then there is no slider")
        if self.choices and self.unit != "times":
            raise ValueError("choices are about a speed, so their unit is times")
        return self

    def read(self, ratio: float) -> float:
        """A ratio of the metric in the unit of this prediction."""
        if self.unit == "percent":
            return 100 * ratio
        return ratio if METRICS[self.metric].better == "higher" else 1 / ratio

    def accept(self, guess: Any) -> Guess:
        """A guess as it was sent. Raises Refusal for one that is not among the answers."""
        if self.choices:
            if guess not in self.choices:
                raise Refusal("This is no answer.", f"Choose one of {', '.join(self.choices)}.")
            return str(guess)
        if isinstance(guess, bool) or not isinstance(guess, int | float) or not self.low <= guess <= self.high:
            raise Refusal("This is no answer.", f"Guess between {self.low:g} and {self.high:g} {UNITS[self.unit]}.")
        return float(guess)


class Further(Entry):
    """What to try next: another question, or this lesson's race with something changed."""

    say: str = Field(min_length=1)
    preset: str = ""
    change: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one(self) -> "Further":
        if bool(self.preset) == bool(self.change):
            raise ValueError("it needs either a preset or a change")
        if self.preset and self.preset not in presets():
            raise ValueError(f"there is no preset {self.preset}")
        return self


class Lesson(Entry):
    """One lesson. It runs `preset`, where that is too long for a lesson with fewer `lanes`, rounds or tokens.

    `seconds` is about how long it took on two cores with the embedded model already loaded once; a reader is told
    that in words, since on another machine, or a busy one, it is another number.
    """

    title: str = Field(min_length=1, max_length=60)
    family: str = Field(min_length=1)
    question: str = Field(min_length=1)
    preset: str
    lanes: tuple[str, ...] = ()
    rounds: int | None = Field(None, ge=MIN_PAIRS)
    max_new_tokens: int | None = Field(None, ge=1)
    seconds: int = Field(ge=1, le=120)
    prediction: Prediction
    explanation: str = Field(min_length=1)
    next: tuple[Further, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _whole(self) -> "Lesson":
        if self.preset not in presets():
            raise ValueError(f"there is no preset {self.preset}; there are {', '.join(presets())}")
        there = list(presets()[self.preset].lanes)
        if missing := [lane for lane in self.lanes if lane not in there]:
            raise ValueError(f"{self.preset} has no lane {missing[0]}; it has {', '.join(there)}")
        lanes, asked = list(self.experiment().lanes), self.prediction
        if asked.over != lanes[0] or asked.lane not in lanes[1:]:
            raise ValueError(f"the prediction compares one of {', '.join(lanes[1:])} with {lanes[0]}")
        for number in range(len(self.next)):
            self.further(number)
        return self

    @property
    def simulated(self) -> bool:
        """Whether no model runs in it: a demonstration."""
        return not any(lane.backend.needs_model for lane in presets()[self.preset].lanes.values())

    @property
    def time(self) -> str:
        """How long its run takes, as far as that can be said."""
        return next(words for most, words in TIMES.items() if self.seconds <= most)

    def experiment(self) -> Experiment:
        """The race that decides it."""
        data = presets()[self.preset].to_dict() | {"title": f"Lesson: {self.title}", "why": "", "expect": None}
        data["lanes"] = {name: lane for name, lane in data["lanes"].items() if not self.lanes or name in self.lanes}
        data["rounds"] = self.rounds or data["rounds"]
        data["workload"]["max_new_tokens"] = self.max_new_tokens or data["workload"]["max_new_tokens"]
        return Experiment.read(data)

    def further(self, number: int) -> Experiment:
        """The experiment of one of its next steps. Raises Refusal for a change that cannot be made."""
        step = self.next[number]
        if step.preset:
            return presets()[step.preset]
        return Experiment.read(assign(self.experiment().to_dict(), list(step.change)) | {"why": step.say})

    def outcome(self, result: dict[str, Any] | None) -> dict[str, Any]:
        """What a run says to the prediction: value, low and high in its unit; None where too little was measured."""
        asked = self.prediction
        found = dict.fromkeys(("value", "low", "high", "word", "unsound"))
        found |= {"unit": UNITS[asked.unit], "verdict": "", "quiet": ""}
        if not result:
            return found | {"verdict": "The run ended before anything was measured."}
        of = (asked.metric, asked.lane)
        verdict = next(one for one in result["verdicts"] if (one["metric"], one["lane"]) == of)
        faults = [f"Lane {lane['name']}: {lane['why']}" for lane in result["lanes"] if lane["why"]]
        if verdict["ratio"] is None or verdict["pairs"] < MIN_PAIRS:  # stopped, failed, or too much of it withdrawn
            told = {"verdict": " ".join(faults) or verdict["sentence"], "unsound": self._unsound(verdict, result)}
            return found | told | {"quiet": _quiet(result) if verdict.get("withdrawn") else ""}
        bounds = sorted(asked.read(verdict[end]) for end in ("low", "high") if verdict[end] is not None)
        low, high = bounds or (None, None)
        value = asked.read(verdict["ratio"])
        return found | {
            "value": value,
            "low": low,
            "high": high,
            "word": verdict["word"],
            "verdict": verdict["sentence"],
        }

    def _unsound(self, verdict: dict[str, Any], result: dict[str, Any]) -> float | None:
        """What was measured all the same, where it decides nothing; None where nothing was."""
        asked, ratio = self.prediction, verdict["ratio"]
        seen = {lane["name"]: lane.get("metrics", {}).get(asked.metric) for lane in result["lanes"]}
        if not ratio and seen.get(asked.lane) and seen.get(asked.over):
            ratio = seen[asked.lane] / seen[asked.over]
        return asked.read(ratio) if ratio else None

    @property
    def setup(self) -> str:
        """What races, in one line: the model, what is asked of it, and what each lane has switched on."""
        race = self.experiment()
        work, model = race.workload, MODELS.get(race.model)
        first = "A timetable in place of a model" if self.simulated else model.title if model else race.model
        each = " each" if work.count > 1 else ""
        said = ", ".join([first.partition(" (")[0], _prompts(work), f"{work.max_new_tokens} new tokens{each}"])
        on = {name: ", ".join(opt.badge() for opt in lane.opts.values()) for name, lane in race.lanes.items()}
        lanes = [] if self.simulated else [f"lane {name}: {had or 'nothing switched on'}" for name, had in on.items()]
        return "; ".join([said, *lanes])

    def mark(self, outcome: dict[str, Any], guess: Guess) -> dict[str, Any]:
        """How far off a guess is: `off` (0.2: a fifth too high), whether it is `right`, None if that is not known."""
        value, word = outcome["value"], outcome["word"]
        if value is None:
            return {"right": None, "off": None, "said": "Too little was measured, so no guess is right or wrong."}
        if isinstance(guess, str):
            known = word if word in self.prediction.choices else None
            return {"right": None if known is None else guess == known, "off": None, "said": _word(guess, known)}
        off = guess / value - 1
        inside = outcome["low"] is not None and outcome["low"] <= guess <= outcome["high"]
        right = inside or abs(off) <= NEAR
        return {"right": right, "off": off, "said": _number(guess, value, off, inside, outcome["unit"])}

    def shown(self) -> dict[str, Any]:
        """What a reader may see before the run, JSON-ready: no explanation, and nothing to try next."""
        asked = self.prediction
        metric = METRICS[asked.metric]
        keys = ("ask", "lane", "over", "low", "high", "step")
        return {
            "title": self.title, "family": self.family, "question": self.question, "time": self.time,
            "simulated": self.simulated, "choices": list(asked.choices), "unit": UNITS[asked.unit],
            "metric": metric.title, "definition": metric.definition, "setup": self.setup,
            **{key: getattr(asked, key) for key in keys},
        }  # fmt: skip

    def told(self, result: dict[str, Any] | None) -> dict[str, Any]:
        """What the reader learns when the run has ended, JSON-ready."""
        return {**self.outcome(result), "explanation": self.explanation, "next": [step.say for step in self.next]}


def _prompts(work: Workload) -> str:
    """How many prompts there are and how long, in words; how many tokens that makes is the model's to say."""
    counts = sorted(len(prompt.split()) for prompt in work.prompts)
    long = f"{counts[0]:,}" if counts[0] == counts[-1] else f"{counts[0]:,} to {counts[-1]:,}"
    some = f"a prompt of {long} words" if work.count == 1 else f"{work.count} prompts of {long} words"
    return f"{some} after the same {len(work.system.split()):,} words" if work.system else some


def _quiet(result: dict[str, Any]) -> str:
    """How much others used while the lanes ran, and how much would do no harm; empty where that is not known."""
    used = [lane.get("conditions", {}).get("others_cores") for lane in result["lanes"]]
    known, cores = [one for one in used if one is not None], result.get("machine", {}).get("cores")
    if not known or not cores:
        return ""
    return (
        f"Other programs used {max(known):.1f} of this machine's {cores} cores. A round counts where a lane waits for "
        f"a core for less than {WAITED:.0%} of its time: close what else runs, then take the lesson again."
    )


def _word(guess: str, word: str | None) -> str:
    if word is None:
        return f"You said {guess}. The rounds scatter too much to tell, so that is neither right nor wrong."
    said, found = ("equally fast" if one == "same" else one for one in (guess, word))
    return f"You said {said}, and so it is." if guess == word else f"You said {said}. It is {found}."


def _number(guess: float, value: float, off: float, inside: bool, unit: str) -> str:
    said, was = (_figure(one, unit) for one in (guess, value))
    if inside:
        return f"You said {said}, it is {was}: within the interval of the measurement."
    side = "high" if off > 0 else "low"
    near = "Close" if abs(off) <= NEAR else "Off"
    return f"You said {said}, it is {was}. {near}: {100 * abs(off):.0f} % too {side}."


def _figure(value: float, unit: str) -> str:
    return f"{value:.0f} %" if unit == "%" else f"{value:.2f}".removesuffix("0") + unit


@cache
def lessons(simulated: bool = False) -> dict[str, Lesson]:
    """The lessons by name, in their order. One that is `simulated` demonstrates the page, and is no lesson else."""
    found = {path.stem.partition("-")[2]: lesson(path) for path in sorted((FOLDER / "lessons").glob("*.toml"))}
    return {name: one for name, one in found.items() if simulated or not one.simulated}


def lesson(path: Path) -> Lesson:
    """Read a file. Raises Refusal with one sentence that names the file and the address."""
    try:
        return Lesson.model_validate(load_toml(path))
    except ValidationError as error:
        problem = error.errors()[0]
        address = ".".join(map(str, problem["loc"]))
        text = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
        raise Refusal(f"{path.name}: {address + ': ' if address else ''}{text[:1].lower()}{text[1:]}.") from None
    except Refusal as refusal:
        why = refusal.why if refusal.why.startswith(path.name) else f"{path.name}: {refusal.why}"
        raise Refusal(why, refusal.hint) from None
