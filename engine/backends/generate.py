"""transformers' own model.generate: what people have today."""

from typing import ClassVar

from engine.backends import Backend, Session


class Generate(Backend):
    """The reference: transformers' model.generate, as most people run a model today.

    What a checkpoint asks of it beside, such as a repetition penalty, is left out: all lanes choose tokens alike.
    """

    title: ClassVar[str] = "transformers generate"

    def open(self) -> Session:
        from engine.decode.generate import GenerateSession

        return GenerateSession()
