// One lane's card: name, badges, the big figure, three small ones, progress and the text as it comes.

import { part } from "./parting.js";
import { amount, DASH, make, swatch, times } from "./units.js";

const SMALL = [
  ["ttft", "First token", "ms"],
  ["itl", "Median gap", "ms"],
  ["memory", "Memory", "bytes"],
];

export function laneCard(number, lane, tips, prompts) {
  const card = make("article", {
    class: "lane",
    "data-lane": number,
    style: `--lane: var(--lane-${number})`,
    "aria-label": `Lane ${lane.name}`,
  });
  const shown = { figures: {}, panes: [], last: null };
  const badges = lane.badges.map((badge) => make("span", { class: "badge" }, badge));
  if (lane.rung) badges.push(make("span", { class: "badge format", title: "The fastest step that loses nothing here: auto chose it" }, lane.rung));
  if (lane.format) badges.unshift(make("span", { class: "badge format", title: "The number format in effect: auto chose it" }, lane.format));
  if (lane.simulated) badges.unshift(make("span", { class: "badge simulated" }, "simulated"));
  const head = make("header", {}, swatch(number), make("h3", {}, lane.name), make("span", { class: "badges" }, ...badges));
  shown.figures.rate = figure("rate", "Speed", tips.rate, "big");
  const stats = make("div", { class: "stats" });
  for (const [key, title] of SMALL) {
    shown.figures[key] = figure(key, title, tips[key], "small");
    stats.append(shown.figures[key].box);
  }
  shown.ratio = make("p", { class: "ratio" });
  shown.bar = make("div", { class: "bar" }, make("i"));
  shown.bar.setAttribute("role", "progressbar");
  shown.bar.setAttribute("aria-label", `Progress of lane ${lane.name}`);
  shown.phase = make("span", { class: "phase" });
  shown.lap = make("span", { class: "lap" });
  shown.text = make("div", { class: "text", role: "log", "aria-live": "off", tabindex: "0", "aria-label": `Text of lane ${lane.name}` });
  shown.legend = make("p", { class: "tinted", hidden: true }, make("mark", {}, "tinted"), " guessed, checked and kept; ↵ is a line break");
  shown.note = make("div", { class: "note" });
  const body = make("div", { class: "body" });
  card.append(head, body);
  body.append(
    make("div", { class: "figures" }, make("div", { class: "speed" }, shown.figures.rate.box, shown.ratio), stats),
    shown.bar,
    make("p", { class: "where" }, shown.phase, shown.lap),
    shown.text,
    shown.legend,
    shown.note,
  );
  const handle = { card, shown, prompts };
  clear(handle);
  show(handle, {});
  return handle;
}

function figure(key, title, tip, size) {
  const value = make("b", {}, "–");
  const unit = make("small", {});
  const label = make("abbr", { title: tip, tabindex: "0" }, title);
  const box = make("div", { class: `figure ${size}`, "data-figure": key }, label, make("span", { class: "amount" }, value, unit));
  return { box, value, unit };
}

// Start the text of a new turn.
export function clear(handle) {
  const { shown, prompts } = handle;
  shown.text.replaceChildren();
  shown.legend.hidden = true;
  shown.last = null;
  shown.panes = Array.from({ length: prompts }, (_, place) => {
    const pane = make("p", {});
    if (prompts > 1) shown.text.append(make("h5", {}, `Prompt ${place + 1}`));
    shown.text.append(pane);
    return pane;
  });
}

export function write(handle, pieces) {
  const { text, panes, legend } = handle.shown;
  const follows = text.scrollHeight - text.scrollTop - text.clientHeight < 40;
  for (const [request, piece, accepted] of pieces) {
    const pane = panes[request] ?? panes[0];
    pane.append(accepted ? kept(piece) : document.createTextNode(piece));
    if (accepted) legend.hidden = false;
  }
  if (follows) text.scrollTop = text.scrollHeight;
}

// An accepted guess; a line break, which has nothing to tint, shows as a sign that is no part of the text.
function kept(piece) {
  const lines = piece.split("\n");
  const parts = lines.slice(1).flatMap((line) => [make("i", { class: "break" }), `\n${line}`]);
  return make("mark", { title: "Guessed, checked and kept" }, lines[0], ...parts);
}

export function show(handle, view, rounds = 0) {
  const { shown, card } = handle;
  set(shown.figures.rate, view.rate, "tok/s");
  for (const [key, , unit] of SMALL) set(shown.figures[key], view[key], unit);
  const share = Math.round(100 * (view.progress ?? 0));
  if (shown.share !== share) {
    shown.bar.firstChild.style.transform = `scaleX(${share / 100})`;
    shown.bar.setAttribute("aria-valuenow", share);
    shown.share = share;
  }
  put(shown.phase, phase(view));
  const round = view.lap > rounds ? `round ${view.lap}, for one that was withdrawn` : `round ${view.lap} of ${rounds}`;
  put(shown.lap, !view.lap ? "" : view.typical ? `typical ${round}` : `${view.tokens} tokens · ${round}`);
  if (card.dataset.phase !== (view.phase ?? "")) card.dataset.phase = view.phase ?? "";
  card.classList.toggle("active", Boolean(view.running));
  if (view.why) {
    shown.note.textContent = view.why;
    shown.note.dataset.kind = "problem";
  }
}

function set(slot, value, unit) {
  const [number, suffix] = amount(value, unit);
  put(slot.value, number);
  put(slot.unit, suffix);
  const known = String(number !== DASH);
  if (slot.box.dataset.known !== known) slot.box.dataset.known = known;
}

// What stays as it is costs no layout.
function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function phase(view) {
  if (!view.detail) return view.phase ?? "";
  const [done, total, unit] = view.detail;
  const known = unit === "bytes" || unit === "B";
  const [of, suffix] = known ? amount(total, "bytes") : [total, unit];
  const so = known ? amount(done ?? 0, "bytes").join(" ") : done;
  return `${view.phase}: ${so} of ${of} ${suffix}`;
}

// What the verdict says of this lane beyond its first sentence, folded: the charts stay in sight.
export function reasons({ shown }, sentences) {
  if (sentences.length) shown.note.replaceChildren(make("details", {}, make("summary", {}, "The verdict in full"), sentences.join(" ")));
}

// A lane that ran something else than its label says loses the label.
function withdraw({ card, shown }, why) {
  card.classList.add("withdrawn");
  shown.note.textContent = `Not what the label says: ${why}`;
  shown.note.dataset.kind = "problem";
}

// What the end adds: the ratio to the first lane.
export function finish(handle, lane, cell, first) {
  const { shown } = handle;
  if (lane.unmet) withdraw(handle, lane.unmet);
  if (lane.parted && !first) part(shown.panes, lane.parted, lane.reference, lane.fate);
  if (cell?.ratio && !first) {
    const sure = cell.word === "faster" || cell.word === "slower" || cell.word === "same";
    shown.ratio.textContent = cell.word === "same" ? `as fast as ${lane.reference}` : `${times(cell.ratio)} the speed of ${lane.reference}${sure ? "" : ", not sure"}`;
    shown.ratio.dataset.word = sure ? cell.word : "unsure";
  } else if (first && cell?.value) {
    shown.ratio.textContent = "reference";
    shown.ratio.dataset.word = "unsure";
  }
}
