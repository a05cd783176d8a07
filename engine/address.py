"""One grammar of addresses everywhere: model, workload.max_new_tokens, lanes.B.opts.kv_cache.kind."""

import json
from typing import Any

from engine.refusal import Refusal
from engine.registry import backends, optimizations
from engine.spec import Experiment, Lane, Workload

PLAIN = {"title": "Question", "lane.backend": "Engine", "lane.backend.name": "Engine"}
"""What is called otherwise than its field."""


def assign(data: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """Apply `ADDRESS=VALUE` strings to an experiment's plain data and return a new dict.

    `lane.` addresses every lane at once. A value is JSON or a bare word. Raises Refusal for an address that
    does not exist, with a list of what does.
    """
    data = json.loads(json.dumps(data))
    for assignment in assignments:
        address, equals, text = assignment.partition("=")
        if not equals:
            raise Refusal(f"{assignment} is no assignment.", "Write ADDRESS=VALUE, for instance rounds=1.")
        for path in _expand(address.strip(), data):
            _put(data, path, _value(text.strip()), address)
    return data


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _expand(address: str, data: dict[str, Any]) -> list[list[str]]:
    head, *rest = address.split(".")
    if head == "lane":
        return [["lanes", name, *rest] for name in data.get("lanes", {})]
    return [[head, *rest]]


def _put(data: dict[str, Any], path: list[str], value: Any, address: str) -> None:
    if path[0] not in Experiment.model_fields:
        raise Refusal(f"{address}: there is no {path[0]}; there are {', '.join(Experiment.model_fields)}.")
    if path[0] == "lanes" and len(path) > 1 and path[1] not in data["lanes"]:
        raise Refusal(f"{address}: there is no lane {path[1]}; there are {', '.join(data['lanes'])}.")
    place = data
    for key in path[:-1]:
        inner = place.get(key)
        if key == "backend" and isinstance(inner, str):
            inner = {"name": inner}
        place[key] = inner if isinstance(inner, dict) else {}
        place = place[key]
    place[path[-1]] = value


def titled(address: str) -> str:
    """An address as the form says it: "Prompt 1", "Prompt lookup: match length"; what has no field, in its own words.

    It is one of a lane (`lane.`) or of an experiment without its lanes.
    """
    if address in PLAIN:
        return PLAIN[address]
    path = address.split(".")
    if path[0] == "lane" and path[1] in ("opts", "backend"):
        return _of_part(path)
    if path[:2] == ["workload", "prompts"]:
        return f"Prompt {int(path[2]) + 1}" if len(path) > 2 else "Prompts"
    fields = {"lane": Lane, "workload": Workload}.get(path[0], Experiment).model_fields
    return _title(fields, path[-1])


def _of_part(path: list[str]) -> str:
    """`lane.opts.NAME`, with or without a knob, or `lane.backend.KNOB`, whose backend the address does not name."""
    if path[1] == "backend":
        knobs = {name: field for part in backends().values() for name, field in part.model_fields.items()}
        return f"Engine: {_title(knobs, path[-1]).lower()}"
    part = optimizations()[path[2]]
    knob = "" if len(path) == 3 else _title(part.model_fields, path[3])
    return part.title if knob in ("", part.title) else f"{part.title}: {knob[:1].lower()}{knob[1:]}"


def _title(fields: dict[str, Any], name: str) -> str:
    text = name.replace("_", " ")
    return (fields[name].title if name in fields else None) or f"{text[:1].upper()}{text[1:]}"
