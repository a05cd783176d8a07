// The lists of runs, my own and the recordings: searchable, each a button that replays it; chosen ones are compared or saved.

import { side } from "./compare.js";
import { buttons } from "./files.js";
import { make, swatch } from "./units.js";

const STATES = { finished: "", running: "running", queued: "in the queue", failed: "a lane failed", cancelled: "stopped", interrupted: "interrupted" };
const PAUSE_MS = 300;
const SHELVES = { mine: "My runs", recordings: "Recordings" };
const ABOUT = "Real runs that come with Pitlane. Each was measured on the machine that it names, not on this one.";
const NONE = "No runs yet. Each run is kept here and can be replayed. ";
const ANOTHER = "choose another one to compare them.";
const STYLE = `
.history li { display: grid; grid-template-columns: auto minmax(0, 1fr); align-items: start; column-gap: 8px; }
.history li input { margin: 10px 0 0; padding: 0; width: 15px; height: 15px; appearance: auto !important; accent-color: var(--ink); }
.history .notice { margin: 6px 0 0; padding: 6px 10px; border-radius: 8px; background: var(--warn-well); color: var(--warn); font-size: 13px; }
.history .chosen { display: flex; flex-wrap: wrap; gap: 4px 6px; align-items: center; font-size: 12.5px; color: var(--ink-2); margin: 6px 0 0; }
.history .chosen button { border: 1px solid var(--rule); background: var(--card); color: var(--ink); border-radius: 8px; padding: 4px 9px; font: inherit; cursor: pointer; }
.history .chosen button:hover { border-color: var(--ink-3); }
`;

export function mount({ element, props, watch, trigger, base }) {
  const root = element.querySelector(".history") ?? element;
  new List(root, props, watch, trigger, base);
}

// The first sentence of a verdict; the others are on the stage.
function claim(sentence) {
  return sentence.split(/(?<=[.!]) (?=[A-Z\d])/)[0];
}

class List {
  constructor(root, props, watch, trigger, base) {
    Object.assign(this, { root, props, trigger, base, chosen: new Set(), shelf: "mine" });
    this.recordings = JSON.parse(props.recordings || "[]");
    this.search = make("input", { type: "search", placeholder: "Search", "aria-label": "Search the runs" });
    this.shelves = Object.entries(SHELVES).map(([shelf, title]) => make("button", { type: "button", "data-shelf": shelf, onclick: () => this.turn(shelf) }, title, " ", make("i", {})));
    const head = make("header", {}, make("h2", { class: "unseen" }, "Runs"), make("div", { class: "shelves", role: "group", "aria-label": "Which runs" }, ...this.shelves), this.search);
    this.about = make("p", { class: "about", hidden: true }, ABOUT);
    this.notice = make("p", { class: "notice", role: "status", hidden: true });
    this.bar = make("div", { class: "chosen", hidden: true });
    this.beside = make("div", {});
    this.list = make("ol", { class: "runs" });
    this.empty = make("p", { class: "none" });
    root.replaceChildren(make("style", {}, STYLE), head, this.notice, this.about, this.bar, this.list, this.empty, this.beside);
    this.search.addEventListener("input", () => this.look());
    this.list.addEventListener("change", (event) => this.choose(event.target));
    this.bar.addEventListener("keep", (event) => this.save([...this.chosen], event.detail.kind));
    document.addEventListener("save", (event) => this.save([event.detail.run], event.detail.kind));
    watch("value", () => this.draw());
    watch("comparison", () => this.compared());
    watch("file", () => this.fetched());
    this.draw();
  }

  get data() {
    return { runs: [], words: "", more: false, notice: "", ...JSON.parse(this.props.value || "{}") };
  }

  draw() {
    const { runs: mine, words, notice } = this.data;
    const recorded = this.shelf === "recordings";
    const runs = recorded ? this.recordings : mine;
    const wanted = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = runs.map((run) => this.row(run)).filter((item) => wanted.every((word) => item.textContent.toLowerCase().includes(word)));
    this.root.dataset.count = mine.length;
    this.root.dataset.shelf = this.shelf;
    this.about.hidden = !recorded;
    this.label({ mine: mine.length, recordings: this.recordings.length });
    this.search.hidden = runs.length < 4 && !words && !this.search.value;
    this.notice.hidden = !notice;
    this.notice.textContent = notice;
    this.list.replaceChildren(...rows);
    this.empty.hidden = rows.length > 0;
    this.empty.replaceChildren(...(runs.length || words ? ["No run matches."] : this.none()));
    this.offer();
  }

  // Which list is shown, and how long each is.
  label(counts) {
    for (const button of this.shelves) {
      const { shelf } = button.dataset;
      button.ariaPressed = shelf === this.shelf;
      button.hidden = shelf === "recordings" && !this.recordings.length;
      button.querySelector("i").textContent = counts[shelf] || "";
    }
  }

  turn(shelf) {
    this.shelf = shelf;
    this.draw();
  }

  none() {
    const watch = make("button", { type: "button", "data-action": "watch", onclick: () => this.turn("recordings") }, "Watch a recording");
    return this.recordings.length ? [NONE, watch] : [NONE];
  }

  // What is listed is searched here; where there is more than that, the history is asked.
  look() {
    this.draw();
    clearTimeout(this.waiting);
    const { words, more } = this.data;
    const asked = this.search.value.trim();
    if (this.shelf === "mine" && (more || words) && asked !== words) this.waiting = setTimeout(() => this.trigger("search", { words: asked }), PAUSE_MS);
  }

  row(run) {
    const lanes = run.lanes.map((lane, number) => make("span", { class: "tag" }, swatch(number), lane.name, lane.badges.length ? make("i", {}, lane.badges.join(", ")) : null));
    const when = new Date(run.created * 1000).toLocaleString([], { dateStyle: "short", timeStyle: "short" });
    const state = STATES[run.state] ?? run.state;
    const marks = [run.simulated ? make("span", { class: "badge simulated" }, "simulated") : null, state ? make("span", { class: "badge" }, state) : null];
    const title = make("span", { class: "name" }, run.title || run.model, " ", ...marks.filter(Boolean));
    const button = make("button", { type: "button", "data-run": run.id, onclick: () => this.trigger("pick", { run: run.id }) },
      run.recorded ? make("span", { class: "origin" }, run.recorded) : make("time", {}, when), title,
      make("span", { class: "who" }, ...lanes), make("span", { class: "sentence" }, run.recorded ? claim(run.sentence) : run.sentence ?? ""));
    const box = make("input", { type: "checkbox", value: run.id, "aria-label": `Choose ${run.title || run.model}, ${when}, to compare or save`, title: "Choose to compare or save" });
    box.checked = this.chosen.has(run.id);
    return make("li", {}, box, button);
  }

  choose(box) {
    this.chosen[box.checked ? "add" : "delete"](box.value);
    this.offer();
  }

  offer() {
    const count = this.chosen.size;
    this.bar.hidden = !count;
    if (!count) return this.beside.replaceChildren();
    const compare = make("button", { type: "button", "data-action": "compare", onclick: () => this.trigger("compare", { runs: [...this.chosen] }) }, "Compare");
    const none = make("button", { type: "button", onclick: () => this.clear() }, "Choose none");
    this.bar.replaceChildren(`${count} chosen: `, count > 1 ? compare : make("span", { class: "hint" }, ANOTHER), "Save: ", ...buttons(JSON.parse(this.props.kinds || "[]"), "keep"), none);
    return undefined;
  }

  clear() {
    this.chosen.clear();
    this.draw();
  }

  compared() {
    if (!this.props.comparison || !this.chosen.size) return;
    this.beside.replaceChildren(side(JSON.parse(this.props.comparison)));
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.beside.firstChild.scrollIntoView({ block: "start", behavior: still ? "auto" : "smooth" });
  }

  save(runs, kind) {
    this.trigger("save", { runs, kind });
  }

  // A ticket for a file: fetch it as a download.
  fetched() {
    const { ticket, problem } = JSON.parse(this.props.file || "{}");
    if (problem) {
      this.notice.hidden = false;
      this.notice.textContent = problem;
    }
    if (ticket) make("a", { href: `${this.base}files/${ticket}`, download: true }).click();
  }
}
