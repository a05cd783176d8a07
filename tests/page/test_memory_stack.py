"""The picture of memory over a turn: one height for all lanes, the prediction over it, and a sentence."""

from components.memory_stack import of
from engine.measure.memory_parts import PARTS

MB = 10**6


def lane(name: str, weights: int, predicted: dict | None = None) -> dict:
    """A lane that holds `weights` MB of them, 3 of keys and values, 97 to compute with and 400 of the program."""
    peak = {**dict.fromkeys(PARTS, 0), "weights": weights * MB, "kv": 3 * MB, "activations": 97 * MB, "other": 400 * MB}
    timeline = {"seconds": [0.5, 1.5], **{part: [held, held] for part, held in peak.items()}}
    return {"name": name, "memory": {"parts": peak, "timeline": timeline, "predicted": predicted}}


def test_lanes_are_compared_on_one_height_with_the_prediction():
    predicted = {"weights": 600 * MB, "kv": None, "other": 500 * MB}
    drawn = of({"lanes": [lane("A", 500, predicted), lane("B", 250), {"name": "C", "memory": {"peak_bytes": 5}}]})
    assert drawn["lanes"][0]["predicted"] == drawn["most"] == 1100 * MB and drawn["lanes"][1]["predicted"] is None
    assert [part["name"] for part in drawn["parts"]] == ["weights", "kv", "activations", "other"]
    assert drawn["lanes"][1]["total"] == 750 * MB and drawn["lanes"][2] is None and drawn["longest"] == 1.5
    assert drawn["sentence"] == (
        "At its peak lane A holds 1.00 GB, 50% of it weights. Lane B holds 250 MB less, mostly in weights (−250 MB)."
    )


def test_without_parts_there_is_no_picture():
    assert (
        of({"lanes": [{"name": "A", "memory": {}}, {"name": "B", "memory": {"parts": None, "timeline": None}}]}) is None
    )
