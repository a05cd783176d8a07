// A replay's clock, and the bar that moves it: play and pause, the second, the speed. No drawing of lanes in here.

import { make } from "./units.js";

const SPEEDS = [1, 2, 4];
const STEP = 0.1; // of the ticks, which components/race makes
const SHAPES = { play: "M8 5.5v13l11-6.5z", pause: "M7 5.5h3.6v13H7zM13.4 5.5H17v13h-3.6z" };

// The lines of a replay. Each tick carries the second `at` which it is due; the end is due with the last of them.
export class Tape {
  constructor(lines) {
    this.start = lines[0];
    this.lines = lines.slice(1);
    this.seconds = this.lines.reduce((most, line) => Math.max(most, line.at ?? 0), 0);
    this.speed = 1;
    this.seek(0);
    this.play(true);
  }

  get playing() {
    return this.since !== null;
  }

  get position() {
    const run = this.playing ? ((performance.now() - this.since) / 1000) * this.speed : 0;
    return Math.min(this.seconds, this.from + run);
  }

  // Go on or hold still; from the end it goes on from the start.
  play(on) {
    if (on && this.ended) this.seek(0);
    this.from = this.position;
    this.since = on ? performance.now() : null;
  }

  // From here on at this speed.
  pace(speed) {
    this.from = this.position;
    if (this.playing) this.since = performance.now();
    this.speed = speed;
  }

  seek(second) {
    [this.from, this.place, this.rewound] = [Math.min(this.seconds, Math.max(0, second)), 0, true];
    this.since = this.since == null ? null : performance.now();
  }

  get ended() {
    return this.place >= this.lines.length;
  }

  // The lines that are due and were not taken yet; after a seek they begin at the start again, as one.
  due() {
    const { position, place } = this;
    while (!this.ended && (this.lines[this.place].at ?? this.seconds) <= position) this.place += 1;
    if (this.ended) this.play(false);
    const lines = this.lines.slice(place, this.place);
    return this.taken() ? folded(lines) : lines;
  }

  taken() {
    const was = this.rewound;
    this.rewound = false;
    return was;
  }
}

// Ticks as one that leaves the lanes in the same state, and what follows them: text is laid out once.
export function folded(lines) {
  const ticks = lines.filter((line) => line.kind === "tick");
  const lanes = {};
  for (const tick of ticks) for (const [number, delta] of Object.entries(tick.lanes)) lanes[number] = joined(lanes[number], delta);
  return [{ kind: "tick", lanes }, ...lines.filter((line) => line.kind !== "tick")];
}

function joined(before, delta) {
  const kept = before && !delta.reset ? before : { ...before, text: [], points: {} };
  const points = { ...kept.points };
  for (const [chart, [xs, ys]] of Object.entries(delta.points ?? {})) {
    const [as, bs] = points[chart] ?? [[], []];
    points[chart] = [[...as, ...xs], [...bs, ...ys]];
  }
  return { ...kept, ...delta, text: [...kept.text, ...(delta.text ?? [])], points };
}

// The bar. `change(act)` does something to the tape and has the stage drawn.
export class Scrubber {
  constructor(change) {
    this.change = change;
    this.toggle = make("button", { type: "button", "data-action": "play", onclick: () => this.change((tape) => tape.play(!tape.playing)) }, shape());
    this.range = make("input", { type: "range", min: 0, step: STEP, "aria-label": "Second of the replay" });
    this.range.addEventListener("input", () => this.change((tape) => tape.seek(Number(this.range.value))));
    this.clock = make("output", { "aria-hidden": "true" });
    this.speeds = SPEEDS.map((speed) => make("button", { type: "button", "data-speed": speed, title: `${speed} times the real speed`, onclick: () => this.change((tape) => tape.pace(speed)) }, `${speed}×`));
    const group = make("div", { class: "speeds", role: "group", "aria-label": "Speed of the replay" }, ...this.speeds);
    this.box = make("div", { class: "scrub", role: "group", "aria-label": "Replay", hidden: true }, this.toggle, this.range, this.clock, group);
  }

  // Show where a tape is, or nothing where there is none.
  show(tape) {
    this.box.hidden = !tape;
    if (!tape) return;
    const name = tape.playing ? "pause" : "play";
    const [position, whole] = [step(tape.position), tape.seconds];
    this.box.dataset.playing = tape.playing;
    this.toggle.ariaLabel = this.toggle.title = tape.playing ? "Pause" : "Play";
    this.toggle.querySelector("path").setAttribute("d", SHAPES[name]);
    this.range.max = whole;
    this.range.value = position;
    this.range.style.setProperty("--share", whole ? position / whole : 0);
    this.range.ariaValueText = `${position.toFixed(1)} of ${whole.toFixed(1)} seconds`;
    this.clock.textContent = `${position.toFixed(1)} / ${whole.toFixed(1)} s`;
    for (const button of this.speeds) button.ariaPressed = Number(button.dataset.speed) === tape.speed;
  }
}

// The second of the last tick that is drawn: shown is what a scrub to it brings back.
function step(second) {
  return Math.floor(second / STEP + 1e-6) * STEP;
}

function shape() {
  const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  drawing.setAttribute("viewBox", "0 0 24 24");
  drawing.setAttribute("aria-hidden", "true");
  drawing.append(document.createElementNS("http://www.w3.org/2000/svg", "path"));
  return drawing;
}
