"""transformers' own model.generate: what people have today."""

from typing import ClassVar

from engine.backends import Backend, Session


class Generate(Backend):
    """The reference: transformers' model.generate with its defaults, as most people run a model today."""

    title: ClassVar[str] = "transformers generate"

    def open(self) -> Session:
        from engine.decode.generate import GenerateSession

        return GenerateSession()
