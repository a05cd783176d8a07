"""Prices: what a million tokens cost on a machine that costs so much an hour."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("prices.toml")
YOURS = "the price that you set"


@dataclass(frozen=True)
class Price:
    """US dollars an hour for everything that a lane occupies, with where that is from; `date` is YYYY-MM-DD."""

    usd: float
    source: str
    date: str | None = None


@cache
def table() -> list[dict[str, Any]]:
    """The rows of prices.toml."""
    return tomllib.loads(TABLE.read_text("utf-8"))["price"]


def listed(device: str, name: str, count: int) -> Price | None:
    """The on-demand price of `count` GPUs called `name`, or of a processor's cores; None where none is known."""
    words = name.replace("-", " ").lower().split()
    for row in table():
        if row["device"] == device and all(_in(word, words) for word in row["words"]):
            return Price(row["usd"] * count, row["source"], row["date"].isoformat())
    return None


def cost(set_price: float, machine: dict[str, Any], lane: dict[str, Any], tok_per_s: float | None) -> dict[str, Any]:
    """A lane's cost from its median output throughput; `set_price` is in dollars an hour, 0 where nobody set one.

    Keys: `per_million_tokens` in US dollars (None where the price or the speed is unknown), `price_per_hour`,
    `source`, `date`. A processor is paid for as a whole, a GPU for each that the lane uses.
    """
    price = Price(set_price, YOURS) if set_price else _default(machine, lane["effective"])
    if not price or lane["effective"].get("simulated"):
        return {"per_million_tokens": None, "price_per_hour": None, "source": None, "date": None}
    per_million = price.usd / 3600 / tok_per_s * 1e6 if tok_per_s else None
    facts = {"price_per_hour": price.usd, "source": price.source, "date": price.date}
    return {"per_million_tokens": per_million, **facts}


def _default(machine: dict[str, Any], effective: dict[str, Any]) -> Price | None:
    plan = effective.get("plan") or {}
    if plan.get("device") == "cuda" and machine["gpus"]:
        return listed("cuda", machine["gpus"][0]["name"], plan.get("replicas", 1) * plan.get("tensor_parallel", 1))
    return listed("cpu", "", machine["cores"]) if plan.get("device") == "cpu" else None


def _in(word: str, words: list[str]) -> bool:
    """Whether the words of a name hold this one, a GPU's model as a whole: "L4" is not in "L40S"."""
    wanted = word.lower().split()
    return any(words[place : place + len(wanted)] == wanted for place in range(len(words)))
