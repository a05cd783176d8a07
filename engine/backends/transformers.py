"""Pitlane's own decode loop over transformers' modules."""

from typing import ClassVar

from engine.backends import Backend, Session


class Transformers(Backend):
    """Pitlane's decode loop over the model's own modules: every toggle, and every step timed."""

    title: ClassVar[str] = "Pitlane loop"

    def open(self) -> Session:
        from engine.decode.modules import ModuleSession

        return ModuleSession()
