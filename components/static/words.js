// Words that a newcomer may not know: one sentence each, which a dotted word shows to a hand, a tap and a key alike.

import { make } from "./units.js";

export const WORDS = {
  lane: "One setup in a race: the same model and the same prompt, with its own optimizations switched on.",
  token: "The piece of text that a model reads and writes: a short word, or a part of a longer one.",
  prompt: "The text that the model is given.",
  "KV cache": "What each layer has computed for the text so far (keys and values), kept so that it is not computed again.",
  prefill: "Reading the prompt: all of its tokens pass through the model together, before the first new token.",
  decode: "Writing: one step through the whole model for each new token, or for a few that were guessed.",
  step: "One pass through the whole model, which gives the next token or checks several guessed ones.",
  operator: "One piece of the work of a step, such as one matrix product.",
  launch: "The start of one operator on the device; many small ones cost time of their own.",
  bfloat16: "A number format with 16 bits, half of float32: half the bytes to read, and less exact digits.",
  float32: "A number format with 32 bits, which loses nothing that matters here.",
  int8: "A number format with 8 bits, a quarter of float32.",
  nats: "The unit of a difference between two models' guesses at the next token; 0 is no difference, 0.7 about one bit.",
  perplexity: "How surprised a model is by a text; less is better.",
  "perplexity ratio": "How much more surprised by a text the changed model is than the unchanged one; 1 is no difference.",
  "typical round": "The round whose speed is in the middle of all rounds; it is the one that is replayed.",
  reference: "What the others are compared with: as a rule the first lane.",
  withdrawn: "Measured, and not counted, because something else used the machine meanwhile.",
  W: "The weights of one layer, as a matrix: one row for each output.",
  X: "The tokens that pass through a layer, as a matrix: one row for each token.",
  "GFLOP/s": "Billions of additions and multiplications in a second.",
  L1d: "The smallest and quickest cache, each core's own.",
  L2: "The middle cache, larger and slower than L1.",
  L3: "The largest cache, which cores share; beyond it lies the memory.",
  cache: "Small, quick memory inside the processor.",
  tile: "A small block of a matrix that is worked on while it lies in a cache.",
  "working set": "All that a tile needs at hand while it is worked on.",
  "vendor's library": "The product as the maker of the processor has programmed it, which torch calls.",
  untiled: "The plain loop, which goes through the whole matrix again for every token.",
};

// The phase that is no lane's own.
export const MEASURING = "measuring this machine, once";

// What happens in the phases of a run whose names do not say it.
export const PHASES = {
  [MEASURING]: "How fast it reads memory and computes is measured, so that every lane is seen beside its limit. Only the first run needs it: some 8 s more, beside other programs about 15 s.",
  "counting launches": "One step is run once more, and every operator that it starts on the device is counted.",
  "reading a text for its quality": "The lane reads a known text, to see whether what is switched on has changed what it would write.",
};

const EXACT = Object.keys(WORDS).filter((word) => /[A-Z]/.test(word)); // W is not a word of every sentence
const LONGEST_FIRST = Object.keys(WORDS).sort((a, b) => b.length - a.length);
const PATTERN = new RegExp(`(?<![\\w/-])(${LONGEST_FIRST.map((word) => word.replace(/[/.]/g, "\\$&")).join("|")})(s|es)?(?![\\w/-])`, "gi");

// A text as nodes in which each known word is dotted, at its first use; `seen` are the words that were met already.
export function explained(text, seen = new Set()) {
  const parts = [];
  let from = 0;
  for (const found of text.matchAll(PATTERN)) {
    const word = meant(found[1]);
    if (!word || seen.has(word)) continue;
    seen.add(word);
    parts.push(text.slice(from, found.index), term(found[0], WORDS[word]));
    from = found.index + found[0].length;
  }
  return [...parts, text.slice(from)].filter(Boolean);
}

function meant(said) {
  return EXACT.includes(said) ? said : LONGEST_FIRST.find((word) => !EXACT.includes(word) && word === said.toLowerCase());
}

// A word that says what it means.
export function term(said, meaning) {
  const mark = make("button", { type: "button", class: "term", title: meaning, "aria-description": meaning, onclick: () => show(mark, said, meaning) }, said);
  return mark;
}

// One sheet for the page, beside the word that was asked about; a press anywhere else or Escape closes it.
function show(mark, said, meaning) {
  const sheet = document.querySelector(".term-sheet") ?? make("aside", { class: "term-sheet", popover: "auto", role: "note" });
  if (!sheet.isConnected) document.body.append(sheet);
  sheet.replaceChildren(make("b", {}, said), " ", meaning);
  sheet.showPopover();
  const at = mark.getBoundingClientRect();
  const below = at.bottom + 6 + sheet.offsetHeight < innerHeight;
  sheet.style.left = `${Math.max(12, Math.min(at.left, innerWidth - sheet.offsetWidth - 12))}px`;
  sheet.style.top = `${below ? at.bottom + 6 : Math.max(12, at.top - 6 - sheet.offsetHeight)}px`;
}

// All of them, folded.
export function glossary() {
  const entries = Object.keys(WORDS).sort((a, b) => a.localeCompare(b)).flatMap((word) => [make("dt", {}, word), make("dd", {}, WORDS[word])]);
  return make("details", { class: "glossary" }, make("summary", {}, "Words"), make("dl", {}, ...entries));
}
