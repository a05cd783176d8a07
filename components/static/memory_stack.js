// What holds a lane's memory while its typical turn runs: one stack a lane, all on the same height and the same clock.

import { make, spoken, swatch } from "./units.js";

const NS = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [600, 130];
const TINT = { weights: 72, kv: 100, activations: 46, slack: 30, graphs: 58 };
const STYLE = `
.memory-stack { margin: 0; padding: 10px 14px 12px; background: var(--card); border: 1px solid var(--rule); border-radius: var(--radius); box-shadow: var(--shadow); }
.memory-stack figcaption { font-size: 13.5px; display: flex; gap: 10px; align-items: baseline; flex-wrap: wrap; margin-bottom: 6px; }
.memory-stack figcaption small { color: var(--ink-2); font-size: 12.5px; }
.memory-stack .lanes { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(330px, 100%), 1fr)); gap: 12px 22px; }
.memory-stack .lane-memory { display: grid; grid-template-columns: minmax(0, 1fr) minmax(150px, max-content); gap: 4px 12px; font-size: 12px; min-width: 0; }
@media (min-width: 1061px) { .memory-stack .lanes:has(> :nth-child(3):last-child) { grid-template-columns: repeat(3, minmax(0, 1fr)); } .memory-stack .lanes:has(> :nth-child(3):last-child) .lane-memory { grid-template-columns: minmax(0, 1fr); } }
.memory-stack h4 { grid-column: 1 / -1; margin: 0; font-size: 12.5px; display: flex; gap: 7px; align-items: center; color: var(--ink); }
.memory-stack h4 span { font-weight: 400; color: var(--ink-2); }
.memory-stack svg.stack { display: block; width: 100%; height: ${HEIGHT}px; overflow: visible; border-bottom: 1px solid var(--rule-2); }
.memory-stack svg.stack path { fill: var(--part); cursor: default; }
.memory-stack svg.stack path:focus-visible { stroke: var(--ink); stroke-width: 2px; outline: none; }
.memory-stack .other { --part: var(--rule-2); }
.memory-stack svg.stack line { stroke: var(--ink); stroke-width: 1.5px; stroke-dasharray: 5 4; vector-effect: non-scaling-stroke; }
.memory-stack .clock { display: flex; justify-content: space-between; color: var(--ink-2); font-size: 11.5px; }
.memory-stack ul { list-style: none; margin: 0; padding: 0; align-self: end; }
.memory-stack li { display: flex; gap: 6px; align-items: center; padding: 1px 0; margin: 0; color: var(--ink-2); white-space: nowrap; }
.memory-stack li b { margin-left: auto; padding-left: 8px; font-weight: 600; color: var(--ink); }
.memory-stack li i { flex: 0 0 auto; width: 10px; height: 10px; border-radius: 2px; background: var(--part); }
.memory-stack li.predicted i { height: 0; border-radius: 0; background: none; border-top: 2px dashed var(--ink); }
.memory-stack .lit :is(path, li):not(.lit) { opacity: 0.35; }
@media (max-width: 480px) { .memory-stack .lane-memory { grid-template-columns: minmax(0, 1fr); } }
`;

// `names` are the lanes' names, `picture` is what components/memory_stack.py makes.
export function memoryStack(names, picture) {
  const lanes = make("div", { class: "lanes" });
  names.forEach((name, number) => lanes.append(panel(name, number, picture)));
  const caption = make("figcaption", {}, make("b", {}, "Memory over a turn"), make("small", {}, picture.sentence));
  return make("figure", { class: "memory-stack" }, make("style", {}, STYLE), caption, lanes);
}

function panel(name, number, picture) {
  const lane = picture.lanes[number];
  const total = lane ? `${spoken(lane.total, "bytes")} at the peak, of which` : "not known in this lane";
  const box = make("div", { class: "lane-memory" }, make("h4", {}, swatch(number), name, make("span", {}, total)));
  box.style.setProperty("--lane", `var(--lane-${number})`);
  if (!lane) return box;
  const clock = make("div", { class: "clock" }, make("span", {}, "0 s"), make("span", {}, `${picture.longest.toFixed(1)} s`));
  box.append(make("div", {}, stack(lane, picture), clock), legend(lane, picture));
  for (const kind of ["pointerover", "focusin"]) box.addEventListener(kind, (event) => light(box, event.target.closest("[data-part]")?.dataset.part));
  for (const kind of ["pointerleave", "focusout"]) box.addEventListener(kind, () => light(box, undefined));
  return box;
}

// Areas in steps: a sample says what was the most since the sample before it.
function stack(lane, picture) {
  const svg = document.createElementNS(NS, "svg");
  for (const [key, value] of Object.entries({ class: "stack", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" })) svg.setAttribute(key, value);
  svg.setAttribute("aria-label", picture.parts.map((part) => told(lane, part)).join(", "));
  const x = (seconds) => (WIDTH * seconds) / picture.longest;
  const y = (bytes) => HEIGHT - (HEIGHT * bytes) / picture.most;
  let floor = lane.seconds.map(() => 0);
  for (const part of picture.parts) {
    const top = floor.map((bytes, place) => bytes + lane.held[part.name][place]);
    svg.append(area(lane.seconds.map(x), floor.map(y), top.map(y), part, told(lane, part)));
    floor = top;
  }
  if (lane.predicted !== null) svg.append(level(y(lane.predicted), lane.predicted));
  return svg;
}

function area(xs, floor, top, part, text) {
  const path = document.createElementNS(NS, "path");
  const up = xs.map((x, place) => `V${top[place]}H${x}`).join("");
  const down = xs.map((_, place) => xs.length - 1 - place).map((place) => `V${floor[place]}H${place ? xs[place - 1] : 0}`).join("");
  path.setAttribute("d", `M0 ${floor[0]}${up}${down}Z`);
  dress(path, part, text);
  path.setAttribute("tabindex", "0");
  return path;
}

function level(y, bytes) {
  const line = document.createElementNS(NS, "line");
  for (const [key, value] of Object.entries({ x1: 0, x2: WIDTH, y1: y, y2: y })) line.setAttribute(key, value);
  const title = document.createElementNS(NS, "title");
  title.textContent = `Predicted peak before loading: ${spoken(bytes, "bytes")}`;
  line.append(title);
  return line;
}

function legend(lane, picture) {
  const list = make("ul", {});
  if (lane.predicted !== null) list.append(row("predicted", "Predicted peak", lane.predicted, "What was expected before anything was loaded."));
  for (const part of [...picture.parts].reverse()) {
    const item = row(part.name, part.title, lane.peak[part.name], part.tip);
    dress(item, part);
    list.append(item);
  }
  return list;
}

function row(name, title, bytes, tip) {
  return make("li", { class: name, title: tip }, make("i", {}), title, make("b", {}, spoken(bytes, "bytes")));
}

function dress(node, part, text) {
  node.dataset.part = part.name;
  node.classList.add(part.name);
  if (TINT[part.name]) node.style.setProperty("--part", `color-mix(in oklab, var(--lane) ${TINT[part.name]}%, var(--card))`);
  if (!text) return;
  const title = document.createElementNS(NS, "title");
  title.textContent = `${text}. ${part.tip}`;
  node.append(title);
}

function told(lane, part) {
  return `${part.title}: ${spoken(lane.peak[part.name], "bytes")} at the peak`;
}

function light(box, name) {
  box.classList.toggle("lit", name !== undefined);
  for (const node of box.querySelectorAll("[data-part]")) node.classList.toggle("lit", node.dataset.part === name);
}
