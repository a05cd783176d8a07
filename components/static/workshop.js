// The workshop's room: who is here, the open lesson, everybody's guesses, and one run that all watch.

import { gist, table } from "./board.js";
import { Asking } from "./guess.js";
import { joining, roomLink } from "./joining.js";
import { linker } from "./links.js";
import { facts, OwnStage } from "./path.js";
import { decided, doubt } from "./reveal.js";
import { scale } from "./scale.js";
import { make } from "./units.js";

const KEPT = "pitlane-seat";
const AGAIN_MS = 1000;
const NOTHING = { value: null, low: null, high: null };

export function mount({ element, props, trigger, base }) {
  new Room(element.querySelector(".workshop") ?? element, props, trigger, base);
}

class Room {
  constructor(root, props, trigger, base) {
    Object.assign(this, { root, base, trigger, state: null });
    this.lessons = JSON.parse(props.lessons);
    this.side = make("aside", { "aria-label": "The room" });
    this.card = make("article", { class: "card lesson", "aria-live": "off" });
    this.stage = new OwnStage(base, (event, detail) => this.hear(event, detail));
    this.problem = make("p", { class: "problem", role: "alert", hidden: true });
    this.way = make("section", { class: "way", "aria-label": "How to join", hidden: true });
    root.replaceChildren(this.side, make("div", { class: "open" }, this.problem, this.way, this.card, this.stage.box));
    this.arrive();
  }

  // The address names the room, and to the presenter its secret, which must not stay where everybody sees it.
  arrive() {
    const query = new URLSearchParams(location.search);
    const [code, secret] = [query.get("room"), query.get("lead")];
    const kept = recalled();
    if (code && !location.hash) location.hash = "#workshop";
    if (secret) {
      query.delete("lead");
      history.replaceState(history.state, "", `${location.pathname}?${query}${location.hash || "#workshop"}`);
    }
    if (kept && !secret && (!code || kept.code === code)) this.listen(kept);
    else if (code) this.enter(code, secret ?? "");
    else this.door();
  }

  // Without a code: ask for it.
  door(problem) {
    const code = make("input", { type: "text", name: "code", autocomplete: "off", placeholder: "e.g. ABC234", "aria-label": "Room code" });
    const form = make("form", { class: "door" }, make("label", {}, "Room code ", code), make("button", { class: "primary" }, "Enter"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.enter(code.value, "");
    });
    this.root.dataset.state = "door";
    this.card.replaceChildren(make("h3", {}, "Which room?"), make("p", { class: "more" }, "The code stands on the presenter's screen."), form);
    this.complain(problem);
  }

  async enter(code, secret) {
    const { seat, problem } = await this.act("enter", { code, secret });
    if (problem) return this.door(problem);
    const kept = { code: code.trim().toUpperCase(), seat };
    try {
      localStorage.setItem(KEPT, JSON.stringify(kept));
    } catch {
      // a browser that keeps nothing: another seat after a reload
    }
    return this.listen(kept);
  }

  listen({ code, seat }) {
    Object.assign(this, { code, seat });
    this.source?.close();
    this.source = new EventSource(`${this.base}workshop/live?seat=${encodeURIComponent(seat)}`);
    this.source.onmessage = ({ data }) => this.see(JSON.parse(data));
    this.source.onerror = () => this.lost();
  }

  // The browser connects again by itself, unless the server has no such seat: then it was started again. A page that
  // is being left hears the same, and must keep its seat.
  lost() {
    if (this.source.readyState === EventSource.CLOSED) setTimeout(() => this.again(), AGAIN_MS);
    else this.complain("The connection to the server is lost. It is tried again every few seconds.");
  }

  again() {
    const code = new URLSearchParams(location.search).get("room");
    if (this.state || !code) this.door("This seat is gone: the server was started again.");
    else this.enter(code, "");
  }

  async act(what, values = {}) {
    const body = JSON.stringify({ do: what, seat: this.seat, ...values });
    const answer = await fetch(`${this.base}workshop`, { method: "POST", headers: { "Content-Type": "application/json" }, body }).catch(() => null);
    const said = answer ? await answer.json() : { problem: "The server does not answer. Try again in a moment." };
    this.complain(said.problem);
    return said;
  }

  complain(problem) {
    this.problem.hidden = !problem;
    this.problem.textContent = problem ?? "";
  }

  see(state) {
    const before = this.state;
    this.state = state;
    this.complain("");
    this.root.dataset.state = !state.lesson ? "waiting" : !state.run ? "predicting" : state.going ? "running" : "told";
    this.root.dataset.leads = state.leads;
    if (!before || before.leads !== state.leads) this.furnish();
    this.aside();
    this.join();
    if (!before || state.lesson !== before.lesson || (before.run && !state.run)) this.open();
    this.show();
  }

  // The lesson anew: its question and what is asked.
  open() {
    const lesson = this.lessons[this.state.lesson];
    this.reveal = make("section", { class: "reveal", "aria-label": "What came of it", hidden: true });
    this.drawn = this.asking = null;
    if (!lesson) {
      return this.card.replaceChildren(...this.welcome());
    }
    this.asking = new Asking(lesson, "Commit:", (guess) => this.commit(guess));
    this.change = make("button", { type: "button", class: "quiet", "data-action": "change", hidden: true, onclick: () => this.rethink() }, "Change my guess");
    this.asking.box.querySelector(".go").append(this.change);
    this.thinking = false;
    return this.card.replaceChildren(make("h3", {}, lesson.question), ...facts(lesson), this.asking.box, make("p", { class: "ready", role: "status" }), this.reveal);
  }

  // A guess can be changed until the run starts; one that did not arrive is as it was.
  async commit(guess) {
    const { problem } = await this.act("predict", { guess });
    this.thinking = Boolean(problem) && this.thinking;
  }

  rethink() {
    this.thinking = true;
    this.asking.unlock();
    this.change.hidden = true;
  }

  // What is on the wall while people come: what is going to happen.
  welcome() {
    const wait = this.state.leads ? "Open a lesson from the list: everybody sees it at once." : "You are in. The presenter opens a lesson in a moment.";
    const steps = ["Everybody commits to a guess. Nobody sees those of others.", "One run is watched by all of us, live.", "The guesses are laid beside what was measured."];
    return [make("h3", {}, "Welcome. Guess first, then measure."), make("ol", { class: "how" }, ...steps.map((step) => make("li", {}, step))), make("p", { class: "more" }, wait)];
  }

  // How to get in, on the presenter's screen all the while.
  join() {
    const link = this.state.leads ? roomLink(this.state.number, this.code) : "";
    this.way.hidden = !link;
    if (link === this.joined || !link) return;
    this.joined = this.field.value = link;
    this.way.replaceChildren(...joining(link, this.code, `${this.base}workshop/code.svg`, this.seat));
  }

  show() {
    const { lesson, guess, run, leads } = this.state;
    this.stage.box.hidden = !run;
    doubt(this.stage.box, this.state.told);
    if (run && this.stage.run !== run) this.stage.watch(run);
    if (!lesson) return;
    if (run) this.thinking = false;
    if (guess !== null && !this.thinking) this.asking.lock(guess);
    else if (leads || run) this.asking.close();
    this.change.hidden = guess === null || Boolean(run) || this.thinking;
    this.card.querySelector(".ready").textContent = this.ready();
    if (run) this.tell();
  }

  ready() {
    const { people, run, guess, leads } = this.state;
    const committed = people.filter((one) => one.ready).length;
    const all = `${committed} of ${people.length} ${people.length === 1 ? "has" : "have"} committed to a guess.`;
    if (run) return guess === null && !leads ? "The run has begun, so it is too late to predict. Watch it, and predict in the next lesson." : "";
    return guess === null || leads ? all : `${all} The run starts when the presenter presses Run.`;
  }

  // Everybody's guesses once they are fixed, and beside them the measurement once it is there.
  tell() {
    const { board, told, mark } = this.state;
    const key = JSON.stringify([board, told]);
    if (key === this.drawn) return;
    this.drawn = key;
    const lesson = this.lessons[this.state.lesson];
    const said = mark?.said ?? (told ? gist(lesson, told, board) : "All guesses are in. Watch the run below.");
    const parts = [make("p", { class: "said" }, said), ...(told ? decided(lesson, told, board) : [scale(lesson, NOTHING, board)])];
    if (told && board.length) parts.push(table(lesson, board));
    if (told) parts.push(this.further(told.next));
    this.reveal.hidden = false;
    this.reveal.replaceChildren(...parts);
  }

  further(next) {
    const tries = next.map((say, number) => make("button", { type: "button", class: "further", onclick: () => this.hear("further", { lesson: this.state.lesson, number }) }, say));
    return make("div", { class: "tries" }, make("h4", {}, "Try next, in the Race: a run of your own that nobody else sees"), ...tries);
  }

  hear(event, detail) {
    if (event === "replay") return this.stage.watch(detail.run, "paced");
    if (event === "ended") return undefined; // the room's state says so
    location.hash = "#race";
    return this.trigger(event, detail);
  }

  // Who is here; to the presenter also what to do. Built once, so that nothing is taken from under a hand.
  furnish() {
    const { leads } = this.state;
    this.here = make("h4", {});
    this.people = make("ul", { class: "people" });
    const head = make("header", {}, make("h2", {}, "Room"), make("output", { class: "code" }, this.code));
    this.side.replaceChildren(head, leads ? this.leading() : this.naming(), make("section", {}, this.here, this.people));
  }

  naming() {
    this.name = make("input", { type: "text", name: "name", maxlength: 24, autocomplete: "off" });
    this.name.addEventListener("change", () => this.act("rename", { name: this.name.value }));
    this.name.addEventListener("keydown", (event) => event.key === "Enter" && this.name.blur());
    return make("label", { class: "name" }, "You are (write your own name here)", this.name);
  }

  leading() {
    const button = (action, kind, values = () => ({})) => make("button", { type: "button", class: kind, "data-action": action, onclick: () => this.act(action, values()) });
    this.field = make("input", { class: "link", readonly: true, "aria-label": "Link for everybody" });
    this.field.addEventListener("focus", () => this.field.select());
    const shared = make("div", { class: "shared" }, make("h4", {}, "Link for everybody"), make("div", { class: "pair" }, this.field, linker(() => this.field.value)));
    const options = Object.entries(this.lessons).map(([name, { title }]) => make("option", { value: name }, title));
    this.picker = make("select", { "aria-label": "Lesson" }, make("option", { value: "" }, "Open a lesson"), ...options);
    this.picker.addEventListener("change", () => this.picker.value && this.act("pick", { lesson: this.picker.value }));
    const start = make("button", { type: "button", class: "primary", "data-action": "start", onclick: () => this.start() });
    this.buttons = { start, pause: button("pause", "quiet", () => ({ on: !this.state.queue.held })), skip: button("skip", "quiet") };
    this.queue = make("p", { class: "queue" });
    return make("section", { class: "leading" }, shared, this.picker, this.buttons.start, make("div", { class: "pair" }, this.buttons.pause, this.buttons.skip), this.queue);
  }

  // With no guess at all a first press asks, and a second one runs.
  start() {
    const { people } = this.state;
    this.asked = !this.asked && !people.some((one) => one.ready);
    if (this.asked) return this.steer();
    return this.act("start");
  }

  aside() {
    const { name, people, leads } = this.state;
    const key = JSON.stringify(people);
    if (key !== this.known) this.people.replaceChildren(...people.map(person));
    this.known = key;
    this.here.textContent = `${people.length} here`;
    if (leads) this.steer();
    else if (document.activeElement !== this.name) this.name.value = name;
  }

  steer() {
    const { queue, lesson, going, people } = this.state;
    const { start, pause, skip } = this.buttons;
    const ready = people.filter((one) => one.ready).length;
    if (ready || going || !lesson) this.asked = false;
    start.textContent = this.asked ? "Nobody has guessed yet. Run all the same?" : `Run (${ready} of ${people.length} ready)`;
    start.disabled = !lesson || going;
    pause.textContent = queue.held ? "Resume queue" : "Pause queue";
    skip.textContent = "Skip run";
    skip.disabled = !queue.runs;
    this.picker.disabled = going;
    if (document.activeElement !== this.picker) this.picker.value = lesson ?? "";
    this.queue.textContent = `${queue.runs ? "A run is going on" : "Nothing runs"}, ${queue.waiting} waiting.${queue.held ? " People's own runs are paused." : ""}`;
  }
}

function person({ name, ready }) {
  const unseen = ready ? make("span", { class: "unseen" }, " has committed") : null;
  return make("li", { class: ready ? "ready" : null }, make("i", { "aria-hidden": "true" }, ready ? "✓" : ""), name, unseen);
}

function recalled() {
  try {
    return JSON.parse(localStorage.getItem(KEPT) || "null");
  } catch {
    return null;
  }
}
