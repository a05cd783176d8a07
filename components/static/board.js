// The board of a workshop: everybody's guess and how far off it was, and in one sentence how all of them did.

import { worded } from "./guess.js";
import { make } from "./units.js";

export function table(lesson, board) {
  const off = (row) => (row.off === null ? (row.right === null ? "" : row.right ? "right" : "wrong") : `${row.off > 0 ? "+" : "−"}${Math.round(100 * Math.abs(row.off))} %`);
  const rows = board.map((row) => make("tr", { class: row.own ? "own" : null }, make("th", { scope: "row" }, row.own ? `${row.name} (you)` : row.name), make("td", {}, worded(lesson, row.guess)), make("td", {}, off(row))));
  const head = make("tr", {}, ...["Who", "Guess", "Off"].map((title) => make("th", { scope: "col" }, title)));
  return make("div", { class: "board", tabindex: "0", "aria-label": "Everybody's guesses" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
}

// For those who did not guess: how the others did.
export function gist(lesson, told, board) {
  if (told.value === null) return "Too little was measured.";
  const right = board.filter((row) => row.right).length;
  return board.length ? `${right} of ${board.length} ${board.length === 1 ? "guess" : "guesses"} came close.` : `Measured: ${worded(lesson, told.value)}.`;
}
