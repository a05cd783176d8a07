// The path of lessons: question, prediction, run, reveal. What a reader has done stays in their browser.

import { Asking, worded } from "./guess.js";
import { decided, doubt } from "./reveal.js";
import { mount as stage } from "./stage.js";
import { make } from "./units.js";
import { explained, glossary, term } from "./words.js";

const KEPT = "pitlane-lessons";

export function mount({ element, props, watch, trigger, base }) {
  new Path(element.querySelector(".path") ?? element, props, watch, trigger, base);
}

// What a lesson is about, in one line, and in another what races.
export function facts({ family, time, simulated, metric, definition, lane, over, setup }) {
  const label = simulated ? make("span", { class: "badge simulated" }, "simulated") : null;
  const by = make("span", {}, "decided by ", term(metric, definition), `, lane ${lane} against ${over}`);
  const line = make("p", { class: "facts" }, label, make("span", {}, family), make("span", {}, `${time} on two cores`), by);
  return [line, make("p", { class: "setup" }, ...explained(setup))];
}

// The stage of a room other than the race: it shows the run that `watch` is told.
export class OwnStage {
  constructor(base, trigger) {
    this.box = make("section", { class: "stage", "aria-label": "The run", hidden: true });
    this.props = {};
    this.calls = {};
    this.setUp = () => stage({ element: this.box, props: this.props, watch: (name, call) => (this.calls[name] = call), trigger, base });
  }

  watch(run, replay = "") {
    this.box.hidden = false;
    this.run = run;
    this.props.value = JSON.stringify({ run, replay });
    if (this.calls.value) this.calls.value();
    else this.setUp();
  }
}

class Path {
  constructor(root, props, watch, trigger, base) {
    Object.assign(this, { root, props, trigger, base });
    this.lessons = JSON.parse(props.lessons);
    this.kept = recalled();
    this.list = make("ol", {});
    this.count = make("p", { class: "count", role: "status" });
    this.pane = make("article", { class: "lesson", "aria-live": "off" });
    this.stage = new OwnStage(base, (event, detail) => this.hear(event, detail));
    const steps = make("nav", { "aria-label": "The path" }, make("h2", {}, "Lessons"), this.count, this.list);
    root.replaceChildren(steps, make("div", { class: "open" }, this.pane, this.stage.box, glossary()));
    watch("value", () => this.answered());
    const names = Object.keys(this.lessons);
    this.open(names.find((name) => this.running(name)) ?? names.find((name) => !this.done(name)) ?? names[0]);
  }

  done(name) {
    return (this.kept[name]?.told?.value ?? null) !== null;
  }

  running(name) {
    return Boolean(this.kept[name]?.run && !this.kept[name].told);
  }

  keep(name, values) {
    this.kept[name] = values && { ...this.kept[name], ...values };
    if (!values) delete this.kept[name];
    try {
      localStorage.setItem(KEPT, JSON.stringify(this.kept));
    } catch {
      // a browser that keeps nothing: the lessons work, the progress ends with the page
    }
    this.draw();
  }

  // The list with its progress.
  draw() {
    const names = Object.keys(this.lessons);
    const done = names.filter((name) => this.done(name)).length;
    this.count.textContent = `${done} of ${names.length} done`;
    this.root.dataset.done = done;
    const focused = this.list.contains(document.activeElement) && document.activeElement.dataset.lesson;
    this.list.replaceChildren(...names.map((name, place) => this.step(name, place + 1)));
    if (focused) this.list.querySelector(`[data-lesson="${focused}"]`).focus({ preventScroll: true });
    const open = this.list.querySelector("[aria-current]");
    if (open) this.list.scrollLeft = open.parentNode.offsetLeft - 40; // on a narrow screen the path is a row
  }

  step(name, number) {
    const { title, family } = this.lessons[name];
    const state = this.done(name) ? "done" : this.running(name) ? "running" : "new";
    const told = this.kept[name]?.told;
    const came = state === "done" ? `${told.right === null ? "Undecided" : told.right ? "Right" : "Surprised"}: it is ${worded(this.lessons[name], told.value)}` : state === "running" ? "Running" : family;
    const mark = make("i", { "aria-hidden": "true" }, state === "done" ? "✓" : String(number));
    const words = make("span", {}, make("b", {}, title), make("small", {}, came));
    const current = name === this.name ? "step" : null;
    return make("li", { "data-state": state }, make("button", { type: "button", "data-lesson": name, "aria-current": current, title: `${number}. ${title}`, onclick: () => this.open(name) }, mark, words));
  }

  open(name) {
    this.name = name;
    const lesson = this.lessons[name];
    const entry = this.kept[name];
    this.asking = new Asking(lesson, "Commit and run:", (guess) => this.commit(guess));
    this.stop = make("button", { type: "button", class: "quiet", "data-action": "halt", onclick: () => this.trigger("halt") }, "Stop");
    this.reveal = make("section", { class: "reveal", "aria-label": "What came of it", tabindex: "-1", hidden: true });
    this.asking.box.querySelector(".go").append(this.stop);
    this.pane.replaceChildren(make("h3", {}, lesson.question), ...facts(lesson), this.asking.box, this.reveal);
    this.pane.dataset.lesson = name;
    if (entry) this.asking.lock(entry.guess);
    doubt(this.stage.box, null);
    if (entry?.told) this.tell();
    if (this.running(name) && this.stage.run !== entry.run) this.stage.watch(entry.run);
    this.stage.box.hidden = !entry?.run || this.stage.run !== entry.run;
    this.enter();
    this.draw();
  }

  enter() {
    const entry = this.kept[this.name];
    this.pane.dataset.state = entry?.told ? "told" : entry ? "running" : "asked";
    this.stop.hidden = this.pane.dataset.state !== "running";
  }

  commit(guess) {
    this.asking.say("");
    this.asking.lock(guess);
    this.begun = { name: this.name, guess };
    this.trigger("begin", { lesson: this.name });
  }

  // The run has begun, or the server says why not; only then can the prediction be changed.
  answered() {
    const { lesson, run, problem } = JSON.parse(this.props.value || "{}");
    if (this.begun?.name !== lesson) return;
    const { guess } = this.begun;
    this.begun = null;
    if (problem) return lesson === this.name ? this.asking.unlock(problem) : undefined;
    this.keep(lesson, { guess, run });
    if (lesson !== this.name) return undefined;
    this.enter();
    return this.stage.watch(run);
  }

  // What the stage says goes on to the page; at the end of a lesson's run its reveal is due.
  hear(event, detail) {
    if (event === "replay") return this.stage.watch(detail.run, "paced");
    if (event !== "ended") location.hash = "#race";
    this.trigger(event, detail ?? {});
    const name = Object.keys(this.kept).find((one) => this.kept[one].run === this.stage.run);
    return event === "ended" && name && !this.kept[name].told ? this.ask(name) : undefined;
  }

  async ask(name) {
    const { run, guess } = this.kept[name];
    const answer = await fetch(`${this.base}lessons/${name}/${run}?guess=${encodeURIComponent(JSON.stringify(guess))}`).catch(() => null);
    const said = await answer?.json().catch(() => null);
    if (!said) return; // the server is lost, which the stage says; after a reload it is asked again
    this.keep(name, { told: answer.ok ? said : { value: null, right: null, said: said.problem, verdict: "", next: [] } });
    if (name !== this.name) return;
    this.tell();
    this.enter();
    this.reveal.focus({ preventScroll: true });
    this.pane.scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  }

  // The guess beside the measurement, what the verdict says, why, and where to go on.
  tell() {
    const { guess, told } = this.kept[this.name];
    const lesson = this.lessons[this.name];
    this.reveal.hidden = false;
    this.reveal.dataset.right = told.right;
    doubt(this.stage.box, told);
    const next = told.next.map((say, number) => make("button", { type: "button", class: "further", "data-further": number, onclick: () => this.further(number) }, say));
    const tries = next.length ? make("div", { class: "tries" }, make("h4", {}, "Try next, in the Race"), ...next) : null;
    this.reveal.replaceChildren(make("p", { class: "said" }, told.said), ...decided(lesson, told, [{ guess, name: "You", own: true }]), tries ?? "", this.onward());
  }

  // Where to go on: to the next lesson, or where nothing was decided rather to this one again.
  onward() {
    const names = Object.keys(this.lessons);
    const following = names[names.indexOf(this.name) + 1];
    const [first, second] = this.done(this.name) ? ["primary", "quiet"] : ["quiet", "primary"];
    const button = (kind, action, words, act) => make("button", { type: "button", class: kind, "data-action": action, onclick: act }, words);
    const on = following ? button(first, "following", `Next lesson: ${this.lessons[following].title}`, () => this.open(following)) : null;
    const anew = button(second, "anew", "Take this lesson again", () => this.anew());
    const { run } = this.kept[this.name];
    const show = this.stage.run === run ? null : button("quiet", "show", "Show the run", () => this.show(run));
    return make("div", { class: "onward" }, ...(this.done(this.name) ? [on, anew] : [anew, on]), show);
  }

  show(run) {
    this.stage.watch(run, "still");
    this.reveal.querySelector("[data-action=show]").remove();
    this.stage.box.scrollIntoView({ block: "start" });
  }

  further(number) {
    this.trigger("further", { lesson: this.name, number });
    location.hash = "#race";
  }

  anew() {
    this.keep(this.name, null);
    this.open(this.name);
  }
}

function recalled() {
  try {
    return JSON.parse(localStorage.getItem(KEPT) || "{}");
  } catch {
    return {};
  }
}
