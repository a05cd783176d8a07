// The stage: reads a run's log of view lines and draws it on its own clock, never faster than it can.

import { Asked } from "./asked.js";
import { bargain } from "./bargain.js";
import { Charts } from "./charts.js";
import { saver } from "./files.js";
import { clear, finish, laneCard, reasons, show, write } from "./lane.js";
import { copier, settle } from "./links.js";
import { drawn } from "./pictures.js";
import { Scrubber, Tape } from "./scrub.js";
import { reality, table } from "./table.js";
import { make, paced } from "./units.js";
import { MEASURING, PHASES } from "./words.js";
import { emphasised, failures, parted } from "./verdict.js";

const DRAW_MS = 120;
const SILENCE_MS = 12000;
const LONG = 150;

const begun = (name, phase) => (phase === MEASURING ? "Measuring this machine, once" : `Lane ${name}: ${phase}`);

export function mount({ element, props, watch, trigger, base }) {
  const root = element.querySelector(".stage") ?? element;
  return new Stage(root, props, watch, trigger, base);
}

// What Run would do now.
function ahead(lanes) {
  const on = lanes.map(({ name, badges }) => `lane ${name} has ${badges.length ? badges.join(", ") : "nothing switched on"}`).join(", ");
  const short = lanes.length > 1 && on.length < LONG;
  return `${short ? `L${on.slice(1)}. ` : ""}Press Run to ${lanes.length > 1 ? "race them" : "measure this lane"}, or pick a question above.`;
}

class Stage {
  constructor(root, props, watch, trigger, base) {
    Object.assign(this, { root, props, trigger, base, pending: [] });
    this.linked = root.closest("#stage") && new URLSearchParams(location.search).has("run");
    this.reduced = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.status = make("div", { class: "verdict", role: "status", "aria-live": "polite" });
    this.lanes = make("div", { class: "lanes" });
    this.chartRow = make("div", { class: "charts" });
    this.after = make("div", { class: "after" });
    this.scrubber = new Scrubber((act) => this.move(act));
    this.asked = new Asked(root);
    root.replaceChildren(this.asked.box, this.status, this.scrubber.box, this.lanes, this.chartRow, this.after);
    this.charts = new Charts(this.chartRow, base, this.reduced);
    this.head = "";
    this.schedule = paced(() => this.flush(), DRAW_MS);
    this.heard = performance.now();
    root.addEventListener("save", (event) => Object.assign(event.detail, { run: this.start.run }));
    root.addEventListener("attempt", (event) => this.trigger("attempt", { run: this.start.run, ...event.detail }));
    watch("value", () => this.open());
    watch("setup", () => this.preview());
    setInterval(() => this.listen(), 2000);
    this.preview();
    this.open();
  }

  // While nothing runs the stage shows the lanes as they are set up.
  preview() {
    const setup = JSON.parse(this.props.setup || "null");
    this.asked.against(setup);
    if (!setup || (this.state && this.state !== "idle")) return;
    const same = JSON.stringify(setup.lanes.map((lane) => lane.name));
    this.enter("idle");
    this.layOut({ ...setup, tips: setup.tips, prompts: 1 }, same !== this.drawn);
    this.after.append(...drawn(setup.lanes.map((lane) => lane.name), setup.pictures));
    this.drawn = same;
    this.say(...(setup.unready ? ["Not ready", setup.unready] : ["Ready", ahead(setup.lanes)]));
  }

  // Read the log of the run that the page names. The browser connects again by itself when a connection is lost,
  // and the log then begins anew.
  open() {
    const asked = JSON.parse(this.props.value || "null");
    if (!asked) return;
    settle(asked.run);
    this.source?.close();
    this.source = new EventSource(`${this.base}runs/${asked.run}/log?replay=${asked.replay}`);
    this.source.onmessage = ({ data }) => this.hear(JSON.parse(data));
    this.source.onerror = () => this.lost();
  }

  // A replay is played once all of it is here; a live log is drawn as it comes.
  hear(line) {
    this.heard = performance.now();
    if (line.kind === "start") [this.pending, this.coming] = [[], line.paced ? [] : null];
    (this.coming ?? this.pending).push(line);
    if (line.kind === "end") {
      this.source.close();
      if (this.coming) this.play(new Tape(this.coming));
    }
    this.schedule();
  }

  // The server is gone or does not know the run; what is on the stage stays.
  lost() {
    const gone = this.source.readyState === EventSource.CLOSED;
    this.enter(gone ? "failed" : "lost");
    if (gone) this.say("This run cannot be shown.", "The server does not know it. Press Run for a new one.");
    else this.say("The connection to the server is lost.", "It is tried again every few seconds; a run goes on without the page.");
    this.said = null;
    if (gone) this.trigger("ended");
  }

  // Apply what has come, or what is due of a replay.
  flush() {
    for (const line of this.pending.splice(0)) this.apply(line);
    if (this.tape) this.roll();
    this.handles?.forEach((handle, number) => show(handle, this.views[number], this.start.rounds));
    this.charts.draw();
    this.scrubber.show(this.tape);
    if (this.tape?.playing) this.schedule();
  }

  play(tape) {
    this.begin(tape.start);
    this.tape = tape;
    if (this.reduced) this.skip();
  }

  roll() {
    if (this.tape.rewound) this.rewind();
    for (const line of this.tape.due()) this.apply(line);
  }

  // To the start line of a replay, to be drawn from there up to another second.
  rewind() {
    this.layOut(this.tape.start, false);
    this.handles.forEach((_, number) => this.charts.clear(number));
    if (this.state !== "running") this.announce();
  }

  // The visitor moves the replay.
  move(act) {
    act(this.tape);
    this.scrubber.show(this.tape);
    this.schedule();
  }

  apply(line) {
    if (line.kind === "start") this.begin(line);
    if (line.kind === "beat") this.beat(line);
    if (line.kind === "tick") this.tick(line);
    if (line.kind === "end") this.end(line);
  }

  begin(line) {
    this.tape = this.drawn = null;
    this.layOut(line, true);
    this.reveal();
    this.asked.show(line);
    this.root.dataset.replay = line.replay ? "true" : "false";
    this.announce();
  }

  announce() {
    this.charts.run(true);
    this.enter(this.start.replay ? "running" : "queued");
    if (this.start.replay) this.say("Replay", "Every lane's typical round on one clock, at real speed.", this.button("Skip to the end", () => this.skip(), "skip"));
    else this.say("Starting", "The engine is being started.");
  }

  // Where the stage is below the controls, or scrolled out: bring it up, but only for somebody who pressed something or a link to it.
  reveal() {
    const out = matchMedia("(max-width: 1060px)").matches || this.root.getBoundingClientRect().top < 0;
    const asked = this.linked || navigator.userActivation?.hasBeenActive;
    this.linked = false;
    if (!asked || !out) return;
    this.root.scrollIntoView({ block: "start", behavior: this.reduced ? "auto" : "smooth" });
  }

  layOut(line, fresh) {
    this.start = line;
    this.views = line.lanes.map(() => ({}));
    this.handles = line.lanes.map((lane, number) => laneCard(number, lane, line.tips, line.prompts));
    this.lanes.replaceChildren(...this.handles.map((handle) => handle.card));
    this.lanes.style.setProperty("--count", line.lanes.length);
    this.lanes.dataset.count = line.lanes.length;
    this.after.replaceChildren();
    if (fresh) this.charts.build(structuredClone(line.figures));
  }

  beat(line) {
    if (line.state === "queued") {
      this.enter("queued");
      const runs = line.position === 1 ? "1 run is" : `${line.position} runs are`;
      const turn = line.position ? `${runs} before yours. It starts by itself.` : "Yours is next.";
      this.say("In the queue", line.held ? "The presenter has paused the queue. It starts by itself when it goes on." : turn);
    } else if (this.state === "queued" || this.state === "lost") this.enter("running");
  }

  tick(line) {
    if (this.state === "queued" || this.state === "lost") this.enter("running");
    for (const [number, delta] of Object.entries(line.lanes)) {
      const handle = this.handles[number];
      if (delta.reset) {
        clear(handle);
        this.charts.clear(Number(number));
      }
      if (delta.text) write(handle, delta.text);
      if (delta.points) this.charts.add(Number(number), delta.points);
      Object.assign(this.views[number], delta);
    }
    if (!this.start.replay) this.turns();
  }

  // Say which lane is running, and how many turns are done.
  turns() {
    const number = this.views.findIndex((view) => view.running);
    if (number < 0) return;
    const view = this.views[number];
    const name = this.start.lanes[number].name;
    const what = view.phase === "running" ? `Lane ${name} runs round ${view.lap} of ${this.start.rounds}` : begun(name, view.phase);
    const lost = this.views.findLast((one) => one.lost)?.lost ?? "";
    if (what + lost === this.said) return;
    this.said = what + lost;
    this.say(what, `${lost || PHASES[view.phase] || "Lanes take turns, so that they do not slow each other down."}${this.left()}`);
  }

  // How long the turns to come will take if they take as long as those that were.
  left() {
    const now = performance.now();
    const done = this.views.reduce((sum, view) => sum + (view.lap ?? 0) - (view.running && view.lap ? 1 : 0), 0);
    if (!done) this.started = now;
    const seconds = ((now - this.started) / done) * (this.start.rounds * this.views.length - done) / 1000;
    return done && seconds > 1 ? ` About ${seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`} left.` : "";
  }

  end(line) {
    this.enter(line.state);
    if (!this.start.replay) this.trigger("ended");
    this.charts.run(false);
    this.said = null;
    for (const view of this.views) view.running = false;
    const speeds = line.rows[0]?.cells ?? [];
    this.handles.forEach((handle, number) => line.lanes[number] && finish(handle, line.lanes[number], speeds[number], !number));
    const again = line.replayable ? this.button("Replay the race", () => this.trigger("replay", { run: this.start.run }), "again") : null;
    const reuse = this.button("Use this setup", () => this.trigger("reuse", { run: this.start.run }), "reuse");
    this.say(...this.outcome(line), again, reuse, copier({ run: this.start.run }), saver(line.pictures.files));
    bargain(line.bargain, this.status.firstChild);
    const names = this.start.lanes.map((lane) => lane.name);
    this.after.replaceChildren();
    const { why, ...others } = line.pictures;
    if (line.rows.length) this.after.append(...drawn(names, { why }), table(names, line), ...drawn(names, others), reality(names, line));
  }

  // Title and further words of the end. With several verdicts each one's reasons go to its own lane's card.
  outcome(line) {
    const verdicts = line.verdicts.map((verdict) => ({ ...verdict, parts: parted(verdict.sentence) }));
    if (verdicts.length > 1) {
      for (const { lanes, parts } of verdicts) for (const lane of lanes) reasons(this.handles[lane], parts.slice(1));
      return ["Verdict", make("ul", {}, ...verdicts.map(({ parts }) => make("li", {}, ...emphasised(parts[0]))))];
    }
    if (verdicts.length) return [verdicts[0].parts[0], verdicts[0].parts.slice(1).join(" ")];
    const [first, ...more] = failures(line, this.start.lanes);
    return [first, more.join(" ")];
  }

  skip() {
    this.tape?.seek(this.tape.seconds);
    this.schedule();
  }

  button(label, action, name) {
    return make("button", { type: "button", class: "quiet", "data-action": name, onclick: action }, label);
  }

  say(title, text, ...buttons) {
    const simulated = this.start?.lanes.some((lane) => lane.simulated) ? make("span", { class: "badge simulated" }, "simulated") : null;
    const more = text instanceof Node ? text : text ? make("p", { class: "more" }, text) : null;
    const origin = this.start?.recorded ? make("p", { class: "origin" }, make("span", { class: "badge" }, this.start.recorded)) : null;
    const words = make("div", { class: "words" }, make("p", { class: "title" }, ...emphasised(title)), more, origin);
    this.status.replaceChildren(words, make("div", { class: "actions" }, simulated, ...buttons));
  }

  enter(state) {
    this.state = state;
    this.root.dataset.state = state;
    if (this.root.closest("#stage")) document.body.dataset.race = state; // lessons have stages of their own
  }

  // A log that has been silent for long has lost its connection without a word: connect anew.
  listen() {
    const live = (this.state === "running" || this.state === "queued") && !this.start.replay;
    if (!live || document.hidden || performance.now() - this.heard < SILENCE_MS) return;
    this.heard = performance.now();
    this.open();
  }
}
