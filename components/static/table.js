// The comparison at the end: a table of metrics by lane, and what really ran.

import { copier } from "./copied.js";
import { amount, DASH, make, spoken, swatch, times } from "./units.js";

const WORDS = { faster: "better", slower: "worse", same: "same", "cannot tell": "cannot tell" };

// Our names, or with the select above it those of another benchmark.
export function table(names, summary) {
  const place = make("div", {}, ours(names, summary));
  const others = summary.translations ?? [];
  const copy = copier(() => place.querySelector("table"));
  if (!others.length) return make("div", { class: "translator" }, copy, place);
  const select = make("select", { "aria-label": "Names of the figures" }, make("option", { value: "" }, "Pitlane"));
  for (const other of others) select.append(make("option", { value: other.name }, other.title));
  select.addEventListener("change", () => {
    const chosen = others.find((other) => other.name === select.value);
    place.replaceChildren(chosen ? theirs(names, chosen) : ours(names, summary));
  });
  const title = "The same run under the names and by the formulas of other benchmarks";
  return make("div", { class: "translator" }, make("label", { title }, "Names and formulas of ", select), copy, place);
}

function heading(names, text) {
  const head = make("tr", {}, make("th", { scope: "col" }, text));
  names.forEach((name, number) => head.append(make("th", { scope: "col" }, swatch(number), name)));
  return head;
}

function framed(head, body, lanes) {
  const grid = make("table", { class: "compare", "data-lanes": lanes }, make("thead", {}, head), body);
  return make("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": "Comparison" }, grid);
}

function theirs(names, dialect) {
  const body = make("tbody", {});
  for (const row of dialect.rows) {
    const tip = [`${row.definition}`, row.differs].filter(Boolean).join(" ");
    const mark = row.differs ? make("small", { class: "differs" }, " differs from ours") : null;
    const line = make("tr", {}, make("th", { scope: "row" }, make("abbr", { title: tip, tabindex: "0" }, row.name), mark));
    for (const value of row.values) {
      const [shown, unit] = amount(value, row.unit);
      line.append(make("td", {}, make("b", {}, shown), make("small", {}, unit)));
    }
    body.append(line);
  }
  const source = make("p", { class: "source" }, `Definitions: ${dialect.source}.`);
  return make("div", {}, framed(heading(names, dialect.title), body, names.length), source);
}

function ours(names, summary) {
  const body = make("tbody", {});
  for (const row of summary.rows) {
    const line = make("tr", { "data-metric": row.key });
    const note = row.note ? make("small", { class: "priced" }, row.note) : null;
    line.append(make("th", { scope: "row" }, make("abbr", { title: row.tip, tabindex: "0" }, row.title), note));
    row.cells.forEach((cell, number) => line.append(entry(cell, row, number)));
    body.append(line);
  }
  return framed(heading(names, "Median over the rounds"), body, names.length);
}

function entry(cell, row, number) {
  const [value, unit] = amount(cell.value, row.unit);
  const box = make("td", {}, make("b", {}, value), make("small", {}, unit));
  if (!number || !cell.ratio) return box;
  const interval = cell.low && cell.high ? `95 % interval ${times(cell.low)} to ${times(cell.high)}, ${cell.pairs} pairs` : null;
  const sub = make("span", { class: "sub" }, make("span", { class: "times", title: interval }, times(cell.ratio)));
  if (cell.low && cell.high) sub.append(make("span", { class: "interval" }, `${times(cell.low)} – ${times(cell.high)}`));
  if (cell.word) sub.append(make("span", { class: "word", "data-word": cell.word }, WORDS[cell.word]));
  box.append(sub);
  return box;
}

export function reality(names, summary) {
  const rows = names.map((name, number) => {
    const lane = summary.lanes[number];
    const ran = Object.entries(lane?.effective ?? {}).map(([key, value]) => make("span", { class: "fact" }, make("i", {}, key.replaceAll("_", " ")), value));
    const paid = Object.entries(lane?.costs ?? {}).map(([key, cost]) => make("span", { class: "fact" }, make("i", {}, key), spoken(cost * 1000, "ms")));
    return make("div", { class: "ran" }, make("b", {}, swatch(number), name), ...ran, ...paid, ran.length + paid.length ? "" : DASH);
  });
  return make("details", { class: "reality" }, make("summary", {}, "What really ran, and what was paid once"), ...rows);
}
