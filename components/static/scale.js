// What was guessed and what was measured, on one axis: guesses below it, the measurement with its interval above.

import { worded } from "./guess.js";
import { ticks } from "./live.js";
import { make } from "./units.js";

const SAME = 0.02;
const ROOM = 1.15;

// `told` is what was measured, `guesses` are { guess, name, own }; a choice of words is drawn as parts of the axis.
export function scale(lesson, told, guesses) {
  const axis = new Axis(lesson, told, guesses);
  const own = guesses.find((one) => one.own);
  const bands = lesson.choices.map((word) => axis.band(word, guesses));
  const marks = lesson.choices.length ? [] : [...guesses.filter((one) => !one.own), ...(own ? [own] : [])].map((one) => axis.guess(one));
  const head = make("div", { class: "measured-row" }, ...axis.measured(told));
  const line = make("div", { class: "line" }, ...bands, ...axis.interval(told), ...marks.map(({ dot }) => dot));
  const labels = own && lesson.choices.length ? [axis.word(own)] : marks.map(({ label }) => label).filter(Boolean);
  const foot = make("div", { class: "guess-row" }, ...labels);
  const numbers = make("div", { class: "numbers" }, ...axis.numbers());
  return make("div", { class: told.unsound ? "scale unsound" : "scale", role: "img", "aria-label": spoken(lesson, told, own, guesses) }, head, line, numbers, foot);
}

function spoken(lesson, told, own, guesses) {
  const was = told.value === null ? "Not measured." : `${measuredAs(told)} ${worded(lesson, told.value)}.`;
  const said = own ? ` You guessed ${worded(lesson, own.guess)}.` : "";
  return `${was}${said}${guesses.length > 1 ? ` ${guesses.length} guesses.` : ""}`;
}

function measuredAs(told) {
  return told.unsound ? "Measured, unsound:" : "Measured";
}

class Axis {
  constructor(lesson, told, guesses) {
    this.lesson = lesson;
    const words = lesson.choices.length > 0;
    const most = Math.max(words ? 1.5 : lesson.high, ROOM * (told.high ?? told.value ?? 0), ...(words ? [] : guesses.map((one) => one.guess)));
    this.low = words ? Math.min(0.5, (told.low ?? told.value ?? 1) / ROOM) : Math.min(lesson.low, told.low ?? told.value ?? lesson.low);
    this.high = most;
  }

  place(value) {
    return Math.min(100, Math.max(0, (100 * (value - this.low)) / (this.high - this.low)));
  }

  // A label stays within the axis: at its left end it begins at its place, at its right end it ends there.
  label(name, value, ...text) {
    const place = this.place(value).toFixed(2);
    return make("span", { class: name, style: `left: ${place}%; transform: translateX(-${place}%)` }, ...text);
  }

  numbers() {
    return ticks(this.high).filter((value) => value >= this.low).map((value) => this.label("number", value, `${value}${this.lesson.unit === "%" ? " %" : this.lesson.unit}`));
  }

  interval({ value, low, high }) {
    if (value === null) return [];
    const bar = low === null ? [] : [make("i", { class: "interval", style: `left: ${this.place(low)}%; width: ${this.place(high) - this.place(low)}%` })];
    return [...bar, make("i", { class: "measured", style: `left: ${this.place(value)}%` })];
  }

  measured(told) {
    const { value, low, high } = told;
    if (value === null) return [];
    const between = low === null ? null : make("small", {}, `95 % interval ${worded(this.lesson, low)} to ${worded(this.lesson, high)}`);
    return [this.label("was", value, make("b", {}, `${measuredAs(told)} ${worded(this.lesson, value)}`), between)];
  }

  guess({ guess, name, own }) {
    const dot = make("i", { class: own ? "guess own" : "guess", style: `left: ${this.place(guess)}%`, title: `${name}: ${worded(this.lesson, guess)}` });
    return { dot, label: own ? this.label("you", guess, `Your guess ${worded(this.lesson, guess)}`) : null };
  }

  ends(word) {
    return { slower: [this.low, 1 - SAME], same: [1 - SAME, 1 + SAME], faster: [1 + SAME, this.high] }[word];
  }

  // The part of the axis that a word means, and how many said it. That of "same" is too narrow for its name.
  band(word, guesses) {
    const [from, to] = this.ends(word);
    const said = guesses.filter((one) => one.guess === word);
    const own = said.some((one) => one.own);
    const name = word === "same" ? "" : worded(this.lesson, word);
    const text = [name, guesses.length > 1 && said.length ? said.length : ""].filter(Boolean).join(": ");
    const style = `left: ${this.place(from)}%; width: ${this.place(to) - this.place(from)}%`;
    return make("span", { class: own ? "band own" : "band", "data-word": word, title: `${worded(this.lesson, word)}: ${said.length}`, style }, make("em", {}, text));
  }

  // The reader's word, below the part that it means.
  word(own) {
    const [from, to] = this.ends(own.guess);
    return this.label("you", (from + to) / 2, `Your guess: ${worded(this.lesson, own.guess)}`);
  }
}
