// What was fused: one bar a lane, as long as its decode step has launches, cut into the names that launch most.

import { make, swatch } from "./units.js";

const TINTS = [46, 37, 29, 22, 41, 33, 25, 19];
const STYLE = `
.launches { margin: 0; padding: 10px 14px 12px; background: var(--card); border: 1px solid var(--rule); border-radius: var(--radius); box-shadow: var(--shadow); }
.launches figcaption { font-size: 13.5px; display: flex; gap: 10px; align-items: baseline; flex-wrap: wrap; margin-bottom: 6px; }
.launches figcaption small { color: var(--ink-2); font-size: 12.5px; }
.launches .row { display: grid; grid-template-columns: minmax(60px, 140px) minmax(0, 1fr) minmax(90px, max-content); gap: 10px; align-items: center; padding: 3px 0; font-size: 12.5px; }
.launches .row > b { display: inline-flex; gap: 7px; align-items: center; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.launches ol { display: flex; height: 26px; margin: 0; padding: 0; list-style: none; gap: 1px; }
.launches li { flex: 0 1 auto; min-width: 2px; margin: 0; padding: 0; overflow: hidden; border-radius: 2px; background: color-mix(in oklab, var(--lane) var(--tint), var(--card)); color: var(--ink); }
.launches li.rest { background: var(--well); }
.launches li:focus-visible { outline: 2px solid var(--ink); outline-offset: 1px; }
.launches li span { display: block; padding: 0 5px; line-height: 26px; font-size: 11px; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.launches li { container-type: inline-size; } @container (max-width: 58px) { .launches li span { display: none; } }
.launches .same li:not(.lit) { opacity: 0.35; }
.launches .sum { color: var(--ink-2); white-space: nowrap; }
@media (max-width: 760px) { .launches .row { grid-template-columns: minmax(0, 1fr) max-content; } .launches ol { grid-column: 1 / -1; grid-row: 2; } }
`;

// `names` are the lanes' names, `picture` is what components/launches.py makes: most, lanes, sentence.
export function launches(names, picture) {
  const rows = make("div", { class: "rows" });
  names.forEach((name, number) => {
    const lane = picture.lanes[number];
    rows.append(lane ? row(name, number, lane, picture.most) : missing(name, number));
  });
  for (const kind of ["pointerover", "focusin"]) rows.addEventListener(kind, (event) => light(rows, event.target.closest("li")?.dataset.name));
  for (const kind of ["pointerleave", "focusout"]) rows.addEventListener(kind, () => light(rows, undefined));
  const caption = make("figcaption", {}, make("b", {}, "Launches in one decode step"), make("small", {}, picture.sentence));
  return make("figure", { class: "launches" }, make("style", {}, STYLE), caption, rows);
}

function row(name, number, lane, most) {
  const bar = make("ol", { "aria-label": `${name}: ${lane.total} ${lane.unit} in one step` });
  bar.style.width = `${(100 * lane.total) / most}%`;
  for (const part of lane.segments) bar.append(segment(part, lane));
  const sum = make("span", { class: "sum" }, make("b", {}, String(lane.total)), ` ${lane.unit}`);
  if (lane.calls !== lane.total) sum.append(`, ${lane.calls} ${lane.calls === 1 ? "call" : "calls"}`);
  const line = make("div", { class: "row", "data-lane": number }, make("b", {}, swatch(number), name), bar, sum);
  line.style.setProperty("--lane", `var(--lane-${number})`);
  return line;
}

function segment(part, lane) {
  const share = part.count / lane.total;
  const time = part.time === null ? "" : `, ${(100 * part.time).toFixed(1)} % of the step's time`;
  const tip = `${part.name}: ${part.count} of ${lane.total} ${lane.unit}${time}`;
  const label = share > 0.04 ? make("span", {}, `${part.name} ${part.count}`) : null;
  const box = make("li", { title: tip, "aria-label": tip, tabindex: "0", "data-name": part.name, class: part.rank === null ? "rest" : null }, label);
  box.style.flexBasis = `${100 * share}%`;
  if (part.rank !== null) box.style.setProperty("--tint", `${TINTS[part.rank % TINTS.length]}%`);
  return box;
}

function missing(name, number) {
  return make("div", { class: "row", "data-lane": number }, make("b", {}, swatch(number), name), make("span", { class: "sum" }, "not counted in this lane"));
}

// Show where the name under the pointer is in every lane.
function light(rows, name) {
  rows.classList.toggle("same", name !== undefined);
  for (const box of rows.querySelectorAll("li")) box.classList.toggle("lit", box.dataset.name === name);
}
