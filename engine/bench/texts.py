"""What benchmarks ask for: texts, and the workload on which each optimization can show what it does."""

from typing import Any

BRIEF = (
    "The lighthouse stands on a rock at the mouth of the bay. Every evening the keeper climbs the steps to the lamp, "
    "trims the wick, and lights it."
)
"""34 tokens of SmolLM2's."""
PROMPT = (
    f"{BRIEF} Every morning he climbs them again to put it out. Ships far out at sea have "
    "watched for that light through fog and storm for more than two"
)
"""64 tokens."""
PAGES = " ".join([PROMPT] * 64)
"""4,096 tokens."""
REPEAT = f"Repeat this text word for word:\n{PROMPT}"
SEVERAL = [
    "Why is the sky blue?", "Name three uses of a lighthouse and say who invented the first one.",
    "Explain what a cache is to a ten-year-old.", "What is the difference between weather and climate?",
    "Say in two sentences what a pit stop is.", "Describe the sea.", "Count from one to twenty in words.",
    "What does a gearbox do?",
]  # fmt: skip
SYSTEM = f"You answer questions about the sea and its lights. {PROMPT} hundred years. Be brief and kind. " * 2
LONG = " ".join([PROMPT] * 7)
TOKENS = 24
PLAIN = {"prompts": [PROMPT], "max_new_tokens": TOKENS, "chat": False}
WORKLOADS: dict[str, dict[str, Any]] = {
    "speculation": {"prompts": [REPEAT], "max_new_tokens": TOKENS},
    "kv cache": {"prompts": [LONG], "max_new_tokens": TOKENS, "chat": False},
    "attention": {"prompts": [LONG], "max_new_tokens": 16, "chat": False},
    "parallelism": {"prompts": SEVERAL, "max_new_tokens": 24},
    "prefix_reuse": {"prompts": SEVERAL, "system": SYSTEM, "max_new_tokens": 8},
}
"""What an optimization is tried on, by its name or its group; the others on `PLAIN`."""
