// The list of runs: newest first, searchable, each a button that replays it.

import { make, swatch } from "./units.js";

const STATES = { finished: "", running: "running", queued: "in the queue", failed: "a lane failed", cancelled: "stopped", interrupted: "interrupted" };

export function mount({ element, props, watch, trigger }) {
  const root = element.querySelector(".history") ?? element;
  const search = make("input", { type: "search", placeholder: "Search", "aria-label": "Search my runs" });
  const list = make("ol", { class: "runs" });
  root.replaceChildren(make("header", {}, make("h2", {}, "My runs"), search), list);
  const draw = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const runs = JSON.parse(props.value || "[]");
    const rows = runs.map((run) => row(run, trigger)).filter((item) => words.every((word) => item.textContent.toLowerCase().includes(word)));
    root.dataset.count = runs.length;
    search.hidden = runs.length < 4;
    list.replaceChildren(...rows);
    if (!rows.length) list.append(make("li", { class: "none" }, runs.length ? "No run matches." : "No runs yet. Each run is kept here and can be replayed."));
  };
  search.addEventListener("input", draw);
  watch("value", draw);
  draw();
}

function row(run, trigger) {
  const lanes = run.lanes.map((lane, number) => make("span", { class: "tag" }, swatch(number), lane.name, lane.badges.length ? make("i", {}, lane.badges.join(", ")) : null));
  const when = new Date(run.created * 1000).toLocaleString([], { dateStyle: "short", timeStyle: "short" });
  const state = STATES[run.state] ?? run.state;
  const marks = [run.simulated ? make("span", { class: "badge simulated" }, "simulated") : null, state ? make("span", { class: "badge" }, state) : null];
  const title = make("span", { class: "name" }, run.title || run.model, " ", ...marks.filter(Boolean));
  const button = make("button", { type: "button", "data-run": run.id, onclick: () => trigger("pick", { run: run.id }) },
    make("time", {}, when), title, make("span", { class: "who" }, ...lanes), make("span", { class: "sentence" }, run.sentence ?? ""));
  return make("li", {}, button);
}
