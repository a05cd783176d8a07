"""The table of a bench: one line for each lane of a row, the losers too."""

from typing import Any

from engine.bench.measuring import DASH, fault, heading, line, megabytes, ratio

DATASHEET = {"H200": 4.8e12, "H100 PCIe": 2.0e12, "H100": 3.35e12, "A100-SXM4-80GB": 2.039e12, "L40S": 0.864e12}
"""Bytes a second that the makers state, by what a GPU's name holds."""
TITLES = (
    "lane", "tok/s", "TPOT, ms", "TTFT, ms", "prefill, tok/s", "tok/s over the first (95 %; pairs)",
    "of the measured limit", "of the datasheet", "weights, MB", "peak, MB", "KL, nats", "J/token", "same text",
    "ready in, s", "note",
)  # fmt: skip


def table(found: dict[str, Any], gpu: str) -> str:
    """A result's lanes; `gpu` is the GPU's name, empty where there is none."""
    stated = next((rate for name, rate in DATASHEET.items() if name in gpu), None)
    lines = [_lane(found, number, stated) for number in range(len(found["lanes"]))]
    return "\n".join([heading(*TITLES), *lines])


def _lane(found: dict[str, Any], number: int, stated: float | None) -> str:
    lane = found["lanes"][number]
    metrics, decode = lane["metrics"], lane["ceiling"]["decode"] or {}
    reached = (decode.get("reached") or {}).get("bytes")
    text = (lane["quality"] or {}).get("text") or {}
    return line(
        lane["name"], _figure(metrics["output_tok_per_s"], 1), _figure(metrics["tpot_ms"], 3),
        _figure(metrics["ttft_ms"], 2), _figure(metrics["prefill_tok_per_s"], 0),
        ratio(found, "output_tok_per_s", number) if number else DASH,
        _percent(decode.get("share")), _percent(reached / stated if reached and stated else None),
        megabytes(lane, "weights"), megabytes(lane, "peak"), _figure(text.get("kl_mean"), 4),
        _figure(lane["energy"]["joules_per_token"], 3), {True: "yes", False: "no", None: DASH}[_same(lane)],
        _figure(sum(filter(None, lane["phases"].values())), 1), _note(lane),
    )  # fmt: skip


def _same(lane: dict[str, Any]) -> bool | None:
    """Whether a lane wrote what the first wrote."""
    return lane["equality"]["identical"]


def _note(lane: dict[str, Any]) -> str:
    rounds = f"{len(lane['rounds'])} rounds"
    return ". ".join(part.rstrip(".") for part in (rounds, fault(lane), lane["hint"] or "") if part)


def _figure(value: float | None, digits: int) -> str:
    return DASH if value is None else f"{value:,.{digits}f}"


def _percent(share: float | None) -> str:
    return DASH if share is None else f"{share:.0%}"
