"""The text of a lane is tinted from the token at which it leaves the first lane's, also beside accepted guesses."""

import pytest

PIECES = [[0, "One 🙂 two ", 0], [0, "three ", 1], [0, "four ", 1], [0, "five and the rest", 0], [1, "alike", 0]]
SCRIPT = """async ([pieces, place]) => {
  const { laneCard, write, finish } = await import(window.gradio_config.root + "/pitlane/lane.js");
  const handle = laneCard(1, { name: "B", badges: [] }, {}, 2);
  write(handle, pieces);
  const before = handle.shown.text.textContent;
  finish(handle, { parted: [{ token: 7, character: place }, null], fate: "A tie.", reference: "A" }, null, false);
  const { text } = handle.shown;
  const [tail, more] = text.querySelectorAll(".parted");
  const sign = text.querySelector(".fork");
  const marks = [...text.querySelectorAll("mark")].map((one) => [one.textContent, Boolean(one.closest(".parted"))]);
  sign?.remove();
  const same = text.textContent === before;
  return { tail: tail?.textContent, more: Boolean(more), tip: sign?.title, marks, same };
}"""
pytestmark = pytest.mark.browser


@pytest.mark.parametrize(
    ("place", "tail", "marks"),
    [
        (6, "two three four five and the rest", [["three ", True], ["four ", True]]),
        (10, "three four five and the rest", [["three ", True], ["four ", True]]),
        (16, "four five and the rest", [["three ", False], ["four ", True]]),
        (26, "and the rest", [["three ", False], ["four ", False]]),
        (0, "One 🙂 two three four five and the rest", [["three ", True], ["four ", True]]),
        (999, None, [["three ", False], ["four ", False]]),
    ],
)
def test_the_tint_begins_at_the_token_and_loses_no_letter(visit, place, tail, marks):
    found = visit().evaluate(SCRIPT, [PIECES, place])
    assert (found["tail"], found["marks"], found["more"], found["same"]) == (tail, marks, False, True)
    if tail:
        assert found["tip"] == "From here, token 8, the text is not lane A's. A tie."
