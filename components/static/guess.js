// A prediction: a slider in its unit, or a choice of words. Nothing is answered until the reader has chosen.

import { make } from "./units.js";

const TICKS = { "×": [1, 2, 4, 8, 16], "%": [50, 100, 200] };
const NOTHING = { "×": [1, "no gain"], "%": [100, "no change"] };
const CROWDED = 0.16; // of the track: a tick nearer to an end stands for it
const OPEN = "Not yet guessed";
const WORDS = { faster: "Faster", same: "Equally fast", slower: "Slower" };

// A guess as people read it.
export function worded(lesson, guess) {
  if (typeof guess === "string") return WORDS[guess].toLowerCase();
  return lesson.unit === "%" ? `${Math.round(guess)} %` : `${guess.toFixed(2).replace(/0$/, "")}${lesson.unit}`;
}

function answers(lesson) {
  if (lesson.choices.length) return `${lesson.choices.map((word) => WORDS[word]).join(", ")}?`;
  return `A number from ${worded(lesson, lesson.low)} to ${worded(lesson, lesson.high)}`;
}

// What stands under the track: its ends, and between them round figures, with the one that means nothing gained.
function ticks({ low, high, unit }) {
  const share = (value) => (value - low) / (high - low);
  const between = TICKS[unit].filter((value) => value > low && value < high);
  const ends = [low, high].filter((end) => !between.some((value) => Math.abs(share(value) - share(end)) < CROWDED));
  const [same, means] = NOTHING[unit];
  const marks = [...ends, ...between].flatMap((value) => {
    const place = `left: ${(100 * share(value)).toFixed(2)}%`;
    const moved = `${place}; transform: translateX(-${share(value) < CROWDED ? 0 : share(value) > 1 - CROWDED ? 100 : 50}%)`;
    return [make("i", { style: place }), make("span", { style: moved }, unit === "%" ? `${value} %` : `${value}${unit}`, value === same ? make("small", {}, means) : null)];
  });
  return make("div", { class: "ticks", "aria-hidden": "true" }, ...marks);
}

export class Asking {
  // `commit(guess)` is called once the reader has chosen and pressed the button named `label`.
  constructor(lesson, label, commit) {
    Object.assign(this, { lesson, label, guess: null });
    this.button = make("button", { type: "button", class: "primary", "data-action": "commit", onclick: () => commit(this.guess) });
    this.answer = lesson.choices.length ? this.words() : this.slider();
    this.problem = make("p", { class: "problem", role: "alert", hidden: true });
    this.range = make("p", { class: "range", hidden: true }, answers(lesson));
    this.hint = make("p", { class: "hint" }, lesson.choices.length ? "Choose your guess." : "Drag the dot to your guess, or move it with the arrow keys.");
    this.box = make("div", { class: "asking" }, this.answer, this.range, make("div", { class: "go" }, this.hint, this.button, this.problem));
    this.choose(null);
  }

  slider() {
    const { low, high, step, unit, ask } = this.lesson;
    const input = make("input", { type: "range", min: low, max: high, step, value: (low + high) / 2, "aria-label": ask });
    const value = make("output", {}, OPEN);
    input.ariaValueText = OPEN;
    const taken = () => {
      this.choose(Number(input.value));
      value.textContent = input.ariaValueText = worded(this.lesson, this.guess);
    };
    for (const event of ["input", "click"]) input.addEventListener(event, taken);
    this.put = (guess) => {
      input.value = guess;
      value.textContent = worded(this.lesson, guess);
    };
    return make("fieldset", { class: "slider" }, make("legend", {}, ask), make("div", { class: "thumb" }, input, ticks({ low, high, unit })), value);
  }

  words() {
    const name = `guess-${Math.random().toString(36).slice(2)}`;
    const inputs = this.lesson.choices.map((word) => make("input", { type: "radio", name, value: word }));
    for (const input of inputs) input.addEventListener("change", () => this.choose(input.value));
    this.put = (guess) => inputs.forEach((input) => (input.checked = input.value === guess));
    const labels = inputs.map((input) => make("label", {}, input, WORDS[input.value]));
    return make("fieldset", { class: "words" }, make("legend", {}, this.lesson.ask), ...labels);
  }

  choose(guess) {
    this.guess = guess;
    this.button.disabled = this.button.hidden = guess === null;
    this.hint.hidden = guess !== null;
    this.box.toggleAttribute("data-open", guess === null);
    this.button.textContent = guess === null ? this.label : `${this.label} ${worded(this.lesson, guess)}`;
  }

  // What is committed can be looked at and no longer changed.
  lock(guess) {
    this.put(guess);
    this.choose(guess);
    this.answer.disabled = this.button.hidden = true;
    this.box.dataset.locked = "";
  }

  // Too late, or not for this reader: only the question stays.
  close() {
    this.answer.disabled = this.button.hidden = this.hint.hidden = true;
    this.range.hidden = false;
    this.box.dataset.closed = "";
  }

  unlock(problem) {
    this.answer.disabled = this.button.hidden = false;
    delete this.box.dataset.locked;
    this.say(problem);
  }

  say(problem) {
    this.problem.hidden = !problem;
    this.problem.textContent = problem ?? "";
  }
}
