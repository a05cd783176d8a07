"""transformers' own assisted generation: its settings for a plan, and a look at what really guessed."""

from typing import Any

import torch

from engine.plan import Plan
from engine.refusal import Refusal


def options(plan: Plan, model: Any, second: Any) -> dict[str, Any]:
    """What generate is called with for the plan's kind of guessing; `second` is the draft model, if there is one.

    The guesses are made as many as ours are: the schedule is constant unless the lane is adaptive, and the draft
    never stops early for want of confidence. What differs: generate drafts before it has read the prompt, so its
    first step may hold several tokens; its early exit reads the prompt once more into a cache of its own; prompt
    lookup has no schedule at all, so an adaptive one is refused; an adaptive draft knows no upper bound, so `Watch`
    holds it to one.
    """
    return OPTIONS[plan.speculation["kind"]](plan.speculation, model, second)


def _lookup(knobs: dict[str, Any], model: Any, second: Any) -> dict[str, Any]:
    return {"prompt_lookup_num_tokens": knobs["guesses"], "max_matching_ngram_size": knobs["ngram"]}


def _second(knobs: dict[str, Any], model: Any, second: Any) -> dict[str, Any]:
    _pace(second, knobs)
    return {"assistant_model": second}


def _early_exit(knobs: dict[str, Any], model: Any, second: Any) -> dict[str, Any]:
    _pace(model, knobs)
    return {"assistant_early_exit": knobs["layers"]}


OPTIONS = {"prompt_lookup": _lookup, "draft_model": _second, "early_exit": _early_exit}


def _pace(assistant: Any, knobs: dict[str, Any]) -> None:
    """generate reads the draft's pace off the assistant's own settings."""
    settings = assistant.generation_config
    settings.num_assistant_tokens = knobs["guesses"]
    settings.num_assistant_tokens_schedule = "heuristic_transient" if knobs["adaptive"] else "constant"
    settings.assistant_confidence_threshold = 0.0


class Watch:
    """Counts what the candidate generator inside generate proposes, which generate itself does not tell.

    `most` is how many guesses one step may hold, however many an adaptive draft would like.
    """

    def __init__(self, model: Any):
        self.kind: str | None = None
        self.knobs: dict[str, Any] = {}
        self.second: Any = None
        self.asked = self.drafted = self.guesses = self.told = self.most = 0
        make = model._get_candidate_generator

        def watched(*args: Any, **kwargs: Any) -> Any:
            generator = make(*args, **kwargs)
            self.kind = NAMES.get(type(generator).__name__)
            self.knobs, self.second = _knobs(generator), getattr(generator, "assistant_model", None)
            propose = generator.get_candidates

            def counted(ids: torch.Tensor, *more: Any, **named: Any) -> Any:
                wanted = _pace_of(generator)
                candidates = propose(ids, *more, **named)
                made = candidates[0].shape[1] - ids.shape[1]
                self.asked += 1
                self.drafted += made
                self.guesses = max(self.guesses, made, wanted)
                return candidates

            adjust = generator.update_candidate_strategy

            def bounded(*args: Any, **kwargs: Any) -> None:
                adjust(*args, **kwargs)
                if hasattr(generator, "num_assistant_tokens"):
                    generator.num_assistant_tokens = min(generator.num_assistant_tokens, self.most)

            generator.get_candidates, generator.update_candidate_strategy = counted, bounded
            return generator

        model._get_candidate_generator = watched

    def start(self) -> None:
        """A run begins."""
        self.kind, self.knobs, self.second = None, {}, None
        self.asked = self.drafted = self.guesses = self.told = 0

    def newest(self) -> int:
        """How many guesses were made since this was asked before: those of one step."""
        before, self.told = self.told, self.drafted
        return self.drafted - before

    def effective(self) -> dict[str, Any] | None:
        """The kind of guessing that ran, with what settings, and how much it guessed; None where nothing guessed."""
        if not self.asked:
            return None
        counted = {"asked": self.asked, "drafted": self.drafted, "guesses": self.guesses}
        return {"kind": self.kind, **self.knobs, **counted}


def _knobs(generator: Any) -> dict[str, Any]:
    """What a candidate generator of transformers goes by, in our words."""
    config = getattr(generator, "assistant_generation_config", None)
    schedule = getattr(config, "num_assistant_tokens_schedule", "constant")
    found = {
        "layers": getattr(generator, "assistant_early_exit", None),
        "ngram": getattr(generator, "max_matching_ngram_size", None),
        "schedule": "constant" if schedule == "constant" else "adaptive",
    }
    return {name: value for name, value in found.items() if value is not None}


def _pace_of(generator: Any) -> int:
    """How many guesses a candidate generator wants in its next step, where the text has room for them."""
    return int(getattr(generator, "num_assistant_tokens", getattr(generator, "num_output_tokens", 0)))


NAMES = {
    "PromptLookupCandidateGenerator": "prompt_lookup",
    "AssistedCandidateGenerator": "draft_model",
    "EarlyExitCandidateGenerator": "early_exit",
}


@torch.inference_mode()
def check_cut(model: Any) -> None:
    """Raises Refusal if the model's code runs all its layers whatever their number is set to.

    generate exits early by lowering that number for a moment; where the code does not look at it, nothing is cut.
    """
    config = model.config.get_text_config()
    total, ran = config.num_hidden_layers, []
    stack = next(part for part in model.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == total)
    hook = stack[-1].register_forward_hook(lambda *_: ran.append(True))
    try:
        config.num_hidden_layers = 1
        model(torch.zeros((1, 1), dtype=torch.long, device=model.device), use_cache=False)
    finally:
        config.num_hidden_layers = total
        hook.remove()
    if ran:
        raise Refusal(
            f"transformers' generate cannot exit early from a {config.model_type} model: it always runs all layers.",
            "Use the Pitlane loop for early exit.",
        )
