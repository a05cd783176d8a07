// The roofline: what the memory's bandwidth (the slope) and arithmetic (the roofs) allow, and where each lane came out.

import { make } from "./units.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 300;
const MARGIN = { left: 58, right: 18, top: 14, bottom: 38 };
const MARKS = [
  (x, y) => `M${x - 5} ${y}a5 5 0 1 0 10 0a5 5 0 1 0 -10 0Z`,
  (x, y) => `M${x} ${y - 6.5}L${x + 6.5} ${y}L${x} ${y + 6.5}L${x - 6.5} ${y}Z`,
  (x, y) => `M${x - 5} ${y - 5}h10v10h-10Z`,
  (x, y) => `M${x} ${y - 6}L${x + 6} ${y + 5}H${x - 6}Z`,
];
const PHASES = { prefill: "prompt", decode: "token" };
const STYLE = `
.roofline { margin: 0; padding: 10px 14px 8px; background: var(--card); border: 1px solid var(--rule); border-radius: var(--radius); box-shadow: var(--shadow); }
.roofline figcaption { font-size: 13.5px; display: flex; gap: 10px; align-items: baseline; flex-wrap: wrap; }
.roofline figcaption small { color: var(--ink-2); font-size: 12.5px; }
.roofline svg { display: block; width: 100%; height: ${HEIGHT}px; overflow: visible; }
.roofline text { font-size: 11.5px; fill: var(--ink-2); font-family: inherit; paint-order: stroke; stroke: var(--card); stroke-width: 4px; stroke-linejoin: round; }
.roofline .label { fill: var(--lane); font-weight: 700; }
.roofline .grid { stroke: var(--rule); stroke-width: 1; fill: none; }
.roofline .roof { stroke: var(--ink-3); stroke-width: 2; fill: none; }
.roofline .gap { stroke: var(--lane); stroke-width: 1.5; stroke-dasharray: 2 3; fill: none; }
.roofline .point { stroke: var(--lane); stroke-width: 2; fill: var(--lane); cursor: help; }
.roofline .point.predicted { fill: var(--card); }
.roofline .point:focus-visible { outline: 2px solid var(--ink); outline-offset: 2px; }
.roofline p { margin: 2px 0 0; font-size: 12px; color: var(--ink-2); }
`;
const LEGEND = "Hollow: at best. Filled: measured. A point under the slope waits for memory, one under a flat roof for arithmetic.";

// `names` are the lanes' names, `picture` is what components/roofline.py makes: slopes, roofs, points, sentence.
export function roofline(names, picture) {
  if (!picture) return null;
  const drawing = node("svg", { role: "group", "aria-label": "Roofline: operations a second over operations for each byte" });
  const draw = () => drawing.replaceChildren(...plot(names, picture, Math.max(280, drawing.clientWidth || 700)));
  new ResizeObserver(draw).observe(drawing);
  draw();
  const caption = make("figcaption", {}, make("b", {}, "Roofline"), make("small", {}, picture.sentence));
  return make("figure", { class: "roofline" }, make("style", {}, STYLE), caption, drawing, make("p", {}, LEGEND));
}

function plot(names, picture, width) {
  const [across, up] = axes(picture, width);
  const inner = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: HEIGHT - MARGIN.bottom };
  const placed = picture.points.map((point) => ({ x: across(point.x) - 8, y: up(point.y) + 4, width: 16 }));
  return [
    ...grid(across, up, inner),
    ...picture.slopes.flatMap((bandwidth) => slope(bandwidth, picture, across, up)),
    ...picture.roofs.flatMap(([name, rate]) => roof(name, rate, picture, across, up, placed)),
    ...gaps(picture.points, across, up),
    ...picture.points.map((point) => mark(point, across, up)),
    ...labels(names, picture.points, across, up, inner, placed),
  ];
}

// Two logarithmic scales that hold every point, every ridge and a little room around them.
function axes(picture, width) {
  const best = Math.max(...picture.slopes, 0);
  const ridges = best ? picture.roofs.map(([, rate]) => rate / best) : [];
  const xs = [...picture.points.map((point) => point.x), ...ridges];
  const ys = [...picture.points.map((point) => point.y), ...picture.roofs.map(([, rate]) => rate)];
  const across = scale(Math.min(...xs) / 2.2, Math.max(...xs) * 2.6, MARGIN.left, width - MARGIN.right);
  return [across, scale(Math.min(...ys) / 2.5, Math.max(...ys) * 2.2, HEIGHT - MARGIN.bottom, MARGIN.top)];
}

function scale(low, high, from, to) {
  const [least, span] = [Math.log10(low), Math.log10(high) - Math.log10(low)];
  const place = (value) => from + ((Math.log10(value) - least) / span) * (to - from);
  return Object.assign(place, { low, high });
}

function powers({ low, high }) {
  const first = Math.ceil(Math.log10(low));
  return Array.from({ length: Math.max(0, Math.floor(Math.log10(high)) - first + 1) }, (_, step) => 10 ** (first + step));
}

function grid(across, up, inner) {
  const columns = powers(across).flatMap((value) => [
    node("path", { class: "grid", d: `M${across(value)} ${inner.top}V${inner.bottom}` }),
    text(across(value), inner.bottom + 15, plain(value), "middle"),
  ]);
  const rows = powers(up).flatMap((value) => [
    node("path", { class: "grid", d: `M${inner.left} ${up(value)}H${inner.right}` }),
    text(inner.left - 7, up(value) + 4, short(value), "end"),
  ]);
  const title = text(inner.right, inner.bottom + 30, "operations for each byte", "end");
  return [...columns, ...rows, title, text(4, 10, "operations a second", "start")];
}

// The slope ends where it meets the highest roof; its label lies along it.
function slope(bandwidth, picture, across, up) {
  const top = Math.max(...picture.roofs.map(([, rate]) => rate), ...(picture.roofs.length ? [] : [up.high]));
  const left = Math.max(across.low, up.low / bandwidth);
  const right = Math.min(across.high, top / bandwidth);
  const [x, y, rise] = [across(left), up(left * bandwidth), up(right * bandwidth) - up(left * bandwidth)];
  const label = text(8, -7, `memory ${short(bandwidth)}B/s`, "start");
  label.setAttribute("transform", `translate(${x} ${y}) rotate(${(Math.atan2(rise, across(right) - x) * 180) / Math.PI})`);
  return [node("path", { class: "roof", d: `M${x} ${y}L${across(right)} ${y + rise}` }), label];
}

// A roof's label stands at its right end, or where a point is in the way at its left one.
function roof(name, rate, picture, across, up, placed) {
  const ridge = Math.max(across.low, picture.slopes.length ? rate / Math.max(...picture.slopes) : 0);
  const words = `${name} ${short(rate)}/s`;
  const end = { x: across(across.high) - 4, y: up(rate) - 6, width: 6.4 * words.length, anchor: "end" };
  const hidden = picture.points.some((point) => meets(end, { x: across(point.x) - 8, y: up(point.y), width: 16 }));
  const at = hidden ? { ...end, x: across(ridge) + 4, anchor: "start" } : end;
  placed.push(at);
  return [node("path", { class: "roof", d: `M${across(ridge)} ${up(rate)}H${across(across.high)}` }), text(at.x, at.y, words, at.anchor)];
}

function gaps(points, across, up) {
  return points
    .filter((point) => point.kind === "measured")
    .map((point) => {
      const best = points.find((other) => other.kind === "predicted" && other.lane === point.lane && other.phase === point.phase);
      return coloured(node("path", { class: "gap", d: `M${across(point.x)} ${up(best.y)}V${up(point.y)}` }), point.lane);
    });
}

function mark(point, across, up) {
  const shape = MARKS[point.lane % MARKS.length](across(point.x), up(point.y));
  const drawn = node("path", { class: `point ${point.kind}`, d: shape, tabindex: "0", role: "img", "aria-label": point.tip });
  drawn.append(node("title", {}, point.tip));
  return coloured(drawn, point.lane);
}

// One label for each lane and phase, beside its lower point, moved away from those that stand there already.
function labels(names, points, across, up, inner, placed) {
  const shown = points.filter((point) => !points.some((other) => other.kind === "measured" && point.kind === "predicted" && other.lane === point.lane && other.phase === point.phase));
  return shown.map((point) => {
    const share = point.share ? ` ${Math.round(100 * point.share)} %` : "";
    const words = `${names[point.lane]} ${PHASES[point.phase]}${share}`;
    const width = 7 * words.length;
    const left = across(point.x) + 10 + width < inner.right;
    const at = { x: across(point.x) + (left ? 10 : -10), y: up(point.y) + (point.kind === "measured" ? 4 : 18), width, anchor: left ? "start" : "end" };
    for (let tries = 0; tries < 12 && placed.some((other) => meets(at, other)); tries += 1) at.y += 14;
    placed.push(at);
    return coloured(text(at.x, at.y, words, at.anchor, "label"), point.lane);
  });
}

function meets(one, other) {
  const [left, right] = [one, other].map((box) => (box.anchor === "end" ? box.x - box.width : box.x));
  return Math.abs(one.y - other.y) < 13 && left < right + other.width && right < left + one.width;
}

function coloured(drawn, lane) {
  drawn.style.setProperty("--lane", `var(--lane-${lane})`);
  return drawn;
}

function text(x, y, words, anchor, kind = "") {
  return node("text", { x, y, "text-anchor": anchor, class: kind }, words);
}

function node(tag, attributes, words) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (words) made.textContent = words;
  return made;
}

// 4.1e10 as "41 G".
function short(value) {
  const step = Math.min(5, Math.max(0, Math.floor(Math.log10(value) / 3)));
  const amount = value / 1000 ** step;
  return `${amount >= 100 ? amount.toFixed(0) : Number(amount.toPrecision(2))} ${["", "k", "M", "G", "T", "P"][step]}`;
}

function plain(value) {
  return value >= 0.01 ? String(Number(value.toPrecision(1))) : value.toExponential(0);
}
