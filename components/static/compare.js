// Lanes of several runs side by side: where they differ, their metrics, and what must be said of that.

import { DASH, make, spoken, times } from "./units.js";

const STYLE = `
.side { margin: 10px 0 0; min-width: 0; scroll-margin-top: 12px; }
.side .wide { overflow-x: auto; border: 1px solid var(--rule); border-radius: 8px; margin: 6px 0; }
.side table { border-collapse: collapse; width: 100%; font-size: 12.5px; }
.side th, .side td { padding: 4px 10px; text-align: right; vertical-align: top; border-top: 1px solid var(--rule); color: var(--ink); }
.side thead th { border-top: 0; } .side thead small { display: block; font-weight: 400; white-space: nowrap; max-width: 220px; margin-left: auto; overflow: hidden; text-overflow: ellipsis; } .side thead small.origin { white-space: normal; } .side th:first-child { text-align: left; font-weight: 400; min-width: 130px; }
.side small { color: var(--ink-2); } .side td { max-width: 260px; overflow-wrap: anywhere; }
.side p { margin: 6px 0; font-size: 13px; color: var(--ink); max-width: 80ch; } .side h3 { font-size: 13px; margin: 10px 0 0; color: var(--ink); }
`;

// `found` is what engine/measure/comparison.py makes, or a problem.
export function side(found) {
  if (found.problem) return make("div", { class: "side" }, make("style", {}, STYLE), make("p", { role: "alert" }, found.problem));
  const heads = found.columns.map((column) => make("th", { scope: "col", title: `Run ${column.run}` }, column.lane, make("small", {}, column.title), make("small", { class: "origin" }, column.recorded || when(column.created))));
  const differ = [...found.setup, ...found.machine].map((row) => line(row.title ?? row.address, row.values.map(plain), row.address));
  const rows = found.rows.map((row) => line(row.title, row.values.map((value, number) => cell(row, value, number))));
  const parts = [make("h3", {}, "Metrics, medians over the rounds"), grid(heads, rows)];
  if (differ.length) parts.push(make("h3", {}, "Where they differ"), grid(heads, differ));
  return make("div", { class: "side" }, make("style", {}, STYLE), ...found.sentences.map((text) => make("p", {}, text)), ...parts);
}

function when(seconds) {
  return new Date(seconds * 1000).toLocaleString([], { dateStyle: "short", timeStyle: "short" });
}

function grid(heads, rows) {
  const head = make("tr", {}, make("th", {}), ...heads.map((one) => one.cloneNode(true)));
  return make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Runs side by side" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
}

function line(title, cells, tip) {
  return make("tr", {}, make("th", { scope: "row", title: tip }, title), ...cells);
}

function plain(value) {
  const word = { true: "on", false: "off" }[value] ?? String(value);
  return make("td", {}, value === null || value === undefined ? DASH : word);
}

function cell(row, value, number) {
  const box = make("td", {}, spoken(value, row.unit));
  const [low, high] = row.bounds[number] ?? [];
  if (row.ratios[number] !== null) box.append(" ", make("small", {}, times(row.ratios[number]), low ? ` (95 %: ${times(low)} to ${times(high)})` : ""));
  return box;
}
