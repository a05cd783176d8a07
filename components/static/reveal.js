// What a run says to a lesson's guesses: the measurement beside them, the evidence, and why; or that nothing was decided.

import { scale } from "./scale.js";
import { make } from "./units.js";
import { explained } from "./words.js";

const USUALLY = "What one would normally see on a quiet machine: ";

// Nodes for a reveal. What decides nothing is laid beside the guesses all the same, grey and called unsound.
export function decided(lesson, told, guesses) {
  const known = told.value !== null;
  const shown = known ? told : { value: told.unsound ?? null, low: null, high: null, unsound: true };
  const drawn = shown.value === null ? null : scale(lesson, shown, guesses);
  const quiet = told.quiet ? make("p", { class: "quietly" }, told.quiet) : null;
  const words = told.explanation ? [known ? null : make("b", {}, USUALLY), ...explained(told.explanation)] : null;
  const why = words && make("p", { class: known ? "explanation" : "explanation usual" }, ...words);
  return [drawn, make("p", { class: "evidence" }, told.verdict), quiet, why].filter(Boolean);
}

// The figures of a run that decided nothing are not to be read as an answer.
export function doubt(box, told) {
  box.toggleAttribute("data-unsound", Boolean(told) && told.value === null);
}
