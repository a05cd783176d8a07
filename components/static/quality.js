// What speed costs in quality: a scale of KL divergence with a dot for each text a lossy lane has read.

import { make, spoken, swatch } from "./units.js";

const LEAST = -5;
const MOST = 1;
const LABELS = [-4, -2, 0];
const STYLE = `
.quality { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: var(--radius); padding: 10px 12px; box-shadow: var(--shadow); color: var(--ink); }
.quality figcaption small { color: var(--ink-2); }
.quality .key { display: inline-flex; gap: 5px; align-items: center; margin-right: 12px; color: var(--ink-2); font-size: 11.5px; }
.quality .key i { flex: none; width: 9px; height: 9px; border-radius: 50%; border: 2px solid var(--ink-3); background: var(--ink-3); box-sizing: border-box; } .quality .key i[data-part="prompt"] { background: none; }
.quality .rows { display: grid; grid-template-columns: max-content minmax(0, 1fr) max-content; column-gap: 14px; margin-top: 4px; }
.quality .row { display: grid; grid-template-columns: subgrid; grid-column: 1 / -1; align-items: center; padding: 5px 0; border-top: 1px solid var(--rule); font-size: 12.5px; }
.quality .row > b { display: inline-flex; gap: 7px; align-items: center; }
.quality .scale { position: relative; height: 30px; margin: 0 6px; background: repeating-linear-gradient(90deg, var(--rule) 0 1px, transparent 1px calc(100% / ${MOST - LEAST})); border-right: 1px solid var(--rule); }
.quality .spread { position: absolute; height: 2px; margin-top: -1px; background: color-mix(in srgb, var(--lane) 45%, transparent); }
.quality .dot { position: absolute; width: 11px; height: 11px; margin: -5.5px 0 0 -5.5px; border-radius: 50%; border: 2.5px solid var(--lane); background: var(--lane); box-sizing: border-box; }
.quality .dot[data-part="prompt"] { background: var(--card); }
.quality .scale [data-part="text"] { top: 8px; } .quality .scale [data-part="prompt"] { top: 22px; }
.quality .said { color: var(--ink-2); } .quality .said b { color: var(--ink); }
.quality .axis { border: 0; padding: 0; color: var(--ink-3); font-size: 11px; } .quality .marks { grid-column: 2; position: relative; height: 15px; margin: 0 6px; }
.quality .marks span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
@media (max-width: 760px) { .quality .rows { grid-template-columns: minmax(0, 1fr); row-gap: 4px; } .quality .marks { grid-column: 1; } .quality .row { row-gap: 4px; } }
`;

// `names` are the lanes' names, `picture` is what components/quality.py makes: lanes, sentence.
export function quality(names, picture) {
  const rows = names.map((name, number) => row(name, number, picture.lanes[number]));
  const parts = picture.lanes.flatMap((lane) => lane?.parts ?? []);
  const keys = ["text", "prompt"].map((part) => parts.find((one) => one.part === part)).filter(Boolean);
  const legend = make("div", {}, ...keys.map((one) => make("span", { class: "key" }, make("i", { "data-part": one.part }), one.title)));
  legend.append(make("span", { class: "key" }, "dot: the average · line: up to the worst hundredth of the places"));
  const caption = make("figcaption", {}, make("b", {}, "What it costs in quality"), make("small", {}, picture.sentence));
  return make("figure", { class: "quality" }, make("style", {}, STYLE), caption, legend, make("div", { class: "rows" }, ...rows, axis()));
}

function row(name, number, lane) {
  const scale = make("div", { class: "scale" });
  for (const part of lane?.parts ?? []) mark(scale, name, part);
  const line = make("div", { class: "row", "data-lane": number }, make("b", {}, swatch(number), name), lane?.parts ? scale : make("span", { class: "said" }, lane?.why ?? "nothing to compare: it computes with the model's own numbers"), said(lane));
  line.style.setProperty("--lane", `var(--lane-${number})`);
  return line;
}

function mark(scale, name, part) {
  const tip = `${name}, ${part.title}: ${part.rows.map((one) => `${one.title} ${spoken(one.value, one.unit)}`).join(", ")}`;
  const dot = make("span", { class: "dot", "data-part": part.part, title: tip, "aria-label": tip, role: "img", tabindex: "0" });
  dot.style.left = place(part.kl_mean);
  if (part.kl_p99) {
    const spread = make("span", { class: "spread", "data-part": part.part });
    spread.style.left = place(part.kl_mean);
    spread.style.right = `calc(100% - ${place(part.kl_p99)})`;
    scale.append(spread);
  }
  scale.append(dot);
}

function place(nats) {
  const decade = nats > 0 ? Math.log10(nats) : LEAST;
  return `${(100 * (Math.min(MOST, Math.max(LEAST, decade)) - LEAST)) / (MOST - LEAST)}%`;
}

function said(lane) {
  const box = make("span", { class: "said" });
  const rows = lane?.parts?.[0].rows ?? [];
  for (const one of rows.filter((one) => one.key !== "kl_p99")) {
    if (box.childNodes.length) box.append(" · ");
    box.append(make("abbr", { title: one.tip, tabindex: "0" }, one.title), " ", make("b", {}, spoken(one.value, one.unit)));
  }
  if (lane?.read) box.append(` · read on ${lane.read}`);
  return box;
}

function axis() {
  const marks = make("div", { class: "marks", "aria-hidden": "true" });
  for (const decade of LABELS) {
    const mark = make("span", {}, decade ? `${10 ** decade}` : "1 nat");
    mark.style.left = place(10 ** decade);
    marks.append(mark);
  }
  return make("div", { class: "row axis" }, marks);
}
