"""Refusal: one sentence on what is wrong and one on what to do instead."""


class Refusal(Exception):
    """Bad input or a missing precondition, told to a person.

    `why` says what is wrong, `hint` what to do instead. A refusal is raised before anything expensive
    starts and never carries a traceback to the page.
    """

    def __init__(self, why: str, hint: str = ""):
        super().__init__(f"{why} {hint}".strip())
        self.why, self.hint = why, hint
