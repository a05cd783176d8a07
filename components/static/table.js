// The comparison at the end: a table of metrics by lane, and what really ran.

import { amount, DASH, make, spoken, swatch, times } from "./units.js";

const WORDS = { faster: "better", slower: "worse", same: "same", "cannot tell": "cannot tell" };

export function table(names, summary) {
  const head = make("tr", {}, make("th", { scope: "col" }, "Median over the rounds"));
  names.forEach((name, number) => head.append(make("th", { scope: "col" }, swatch(number), name)));
  const body = make("tbody", {});
  for (const row of summary.rows) {
    const line = make("tr", { "data-metric": row.key });
    line.append(make("th", { scope: "row" }, make("abbr", { title: row.tip, tabindex: "0" }, row.title)));
    row.cells.forEach((cell, number) => line.append(entry(cell, row, number)));
    body.append(line);
  }
  const grid = make("table", { class: "compare", "data-lanes": names.length }, make("thead", {}, head), body);
  return make("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": "Comparison" }, grid);
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
