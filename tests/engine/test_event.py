"""Events survive the wire."""

import pytest

from engine.event import Failed, Finished, Memory, Phase, Record, Request, Step, from_dict, to_dict

EVENTS = [
    Phase(1.0, "fetch", 10, 93, "MB"),
    Request(1.5, 0, 12),
    Step(2.0, (0, 1), ((5,), (6, 7)), (("a",), ("b", "c")), cached=13, drafted=4, accepted=1),
    Memory(2.5, weights=5, kv=None, rss=7),
    Finished(3.0, {"dtype": "float32", "threads": 2}),
    Failed(3.5, "It broke.", "Run again.", "refused"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_is_the_same_after_the_wire(event):
    assert from_dict(to_dict(event)) == event
    record = Record(1, None, event)
    assert Record.parse(record.line()) == record


def test_an_unknown_kind_is_an_error():
    with pytest.raises(KeyError):
        from_dict({"kind": "rumour", "t": 1.0})
