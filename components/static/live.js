// A chart while lanes run: drawn on a canvas, for a small part of what a plot with axes costs that one can zoom.
// The browser shares the processor with the engine, so what it draws meanwhile must cost next to nothing.

import { make } from "./units.js";

const DASHES = { solid: [], dash: [9, 5], dot: [2.5, 3.5], dashdot: [9, 4, 2.5, 4] };
const MARKS = {
  circle: (pen, x, y, r) => pen.arc(x, y, r, 0, 7),
  square: (pen, x, y, r) => pen.rect(x - r, y - r, 2 * r, 2 * r),
  diamond: (pen, x, y, r) => path(pen, [[x, y - 1.3 * r], [x + 1.3 * r, y], [x, y + 1.3 * r], [x - 1.3 * r, y]]),
  cross: (pen, x, y, r) => pen.rect(x - r, y - r / 2.5, 2 * r, r / 1.25) || pen.rect(x - r / 2.5, y - r, r / 1.25, 2 * r),
};
const TICKS = 6;
const MARGIN = { left: 36, right: 8, top: 6, bottom: 22 };

function path(pen, points) {
  points.forEach(([x, y], place) => (place ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.closePath();
}

// Round values from 0 on that `most` lies between, no more than TICKS of them.
export function ticks(most) {
  if (!(most > 0)) return [];
  const rough = most / (TICKS - 1);
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= rough);
  return Array.from({ length: Math.floor(most / step + 1e-9) + 1 }, (_, place) => Number((place * step).toPrecision(12)));
}

export class Live {
  constructor(figure, label) {
    this.figure = figure;
    this.canvas = make("canvas", { class: "live", role: "img", "aria-label": label });
    this.pen = this.canvas.getContext("2d");
  }

  // `colours` are those of the theme: ink, rule, and one for each trace.
  draw(colours) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width) return;
    const { pen, canvas } = this;
    const ratio = Math.min(2, devicePixelRatio || 1);
    if (canvas.width !== Math.round(width * ratio)) [canvas.width, canvas.height] = [width, height].map((side) => Math.round(side * ratio));
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const known = this.figure.data.filter((trace) => trace.x.length);
    if (known.length) this.plot(width, height, colours, known);
  }

  plot(width, height, colours, known) {
    const [mostX, mostY] = ["x", "y"].map((side) => known.reduce((most, trace) => Math.max(most, largest(trace[side])), 0));
    const box = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: height - MARGIN.bottom };
    const across = (x) => box.left + ((box.right - box.left) * x) / (mostX * 1.02 || 1);
    const up = (y) => box.bottom - ((box.bottom - box.top) * y) / (mostY * 1.08 || 1);
    this.grid(box, colours, ticks(mostX).map((x) => [across(x), `${x} s`]), ticks(mostY).map((y) => [up(y), String(y)]));
    this.figure.data.forEach((trace, number) => {
      const draw = trace.mode === "lines" ? this.line : this.dots;
      if (trace.x.length) draw.call(this, trace, colours.traces[number], across, up);
    });
    this.pen.globalAlpha = 1;
  }

  grid(box, { ink, rule, font }, columns, rows) {
    const { pen } = this;
    Object.assign(pen, { strokeStyle: rule, fillStyle: ink, lineWidth: 1, font, globalAlpha: 1 });
    pen.setLineDash([]);
    pen.beginPath();
    for (const [x] of columns) path(pen, [[x, box.top], [x, box.bottom]]);
    for (const [, y] of rows.map(([y]) => [0, y])) path(pen, [[box.left, y], [box.right, y]]);
    pen.stroke();
    Object.assign(pen, { textAlign: "center", textBaseline: "top" });
    for (const [x, text] of columns) pen.fillText(text, Math.min(x, box.right - 8), box.bottom + 6);
    Object.assign(pen, { textAlign: "right", textBaseline: "middle" });
    for (const [y, text] of rows) pen.fillText(text, box.left - 6, y);
  }

  line(trace, colour, across, up) {
    const { pen } = this;
    Object.assign(pen, { strokeStyle: colour, lineWidth: trace.line.width, globalAlpha: trace.opacity ?? 1, lineJoin: "round" });
    pen.setLineDash(DASHES[trace.line.dash] ?? []);
    pen.beginPath();
    trace.x.forEach((x, place) => {
      if (place && trace.line.shape === "hv") pen.lineTo(across(x), up(trace.y[place - 1]));
      pen[place ? "lineTo" : "moveTo"](across(x), up(trace.y[place]));
    });
    pen.stroke();
  }

  dots(trace, colour, across, up) {
    const { pen } = this;
    Object.assign(pen, { fillStyle: colour, globalAlpha: trace.marker.opacity });
    const mark = MARKS[trace.marker.symbol] ?? MARKS.circle;
    trace.x.forEach((x, place) => {
      pen.beginPath();
      mark(pen, across(x), up(trace.y[place]), trace.marker.size / 2);
      pen.fill();
    });
  }
}

function largest(values) {
  let most = 0;
  for (const value of values) if (value > most) most = value;
  return most;
}
