"""Part: what optimizations and backends have in common: a title, a lesson, knobs, and limits."""

import inspect
import re
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A piece that the registry finds by its file. The class explains itself; the instance is the configuration.

    Knobs are pydantic fields with bounds and a description; the widget, the `--set` address, the validation
    and the README row derive from them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    title: ClassVar[str]
    group: ClassVar[str]
    only: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Knobs that belong to some choices of the first knob alone, with those choices."""

    @classmethod
    def name(cls) -> str:
        """The file's name, which is this part's name in every address."""
        return cls.__module__.rsplit(".", 1)[-1]

    @classmethod
    def lesson(cls) -> str:
        """The class docstring: what it does, when it helps, when it hurts."""
        return inspect.cleandoc(cls.__doc__ or "")

    @classmethod
    def headline(cls) -> str:
        """The first sentence of the lesson, in one line."""
        return re.sub(r"\s+", " ", cls.lesson().split("\n\n")[0]).strip()

    @classmethod
    def unavailable(cls, machine: Any, model: Any = None) -> str | None:
        """Why this cannot run on `machine` with `model`, as a sentence; None where it can.

        `machine` is an engine.measure.machine.Machine, `model` an engine.models.architecture.Architecture or
        None while the model's config is not known yet.
        """
        return None

    @classmethod
    def advice(cls, machine: Any) -> str:
        """Where several parts do alike, which to take on `machine`, as a sentence; empty where there is no choice."""
        return ""

    def knobs(self) -> dict[str, Any]:
        """The values of the knobs, JSON-ready."""
        return self.model_dump(mode="json")
