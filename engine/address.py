"""One grammar of addresses everywhere: model, workload.max_new_tokens, lanes.B.opts.kv_cache.kind."""

import json
from typing import Any

from engine.refusal import Refusal
from engine.spec import Experiment


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
