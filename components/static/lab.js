// The lab's board: one view (JSON) at a time, with its sentence, its pictures, and the tile that a visitor moves.

import { plotly } from "./charts.js";
import { make, paced, spoken } from "./units.js";
import { explained, glossary } from "./words.js";

const DRAW_MS = 120;
const STATES = {
  idle: ["Ready", "Press Run lab. Dotted lines show from where on a tile should no longer fit in a cache."],
  waits: ["Waiting", "Another run measures on this machine. The lab starts by itself when it has ended."],
  runs: ["Measuring", ""],
};

export function mount({ element, props, watch, trigger, base }) {
  for (const told of document.querySelectorAll("#lab-rail details")) {
    const seen = new Set();
    for (const text of told.querySelectorAll("p")) text.replaceChildren(...explained(text.textContent, seen));
  }
  new Board(element.querySelector(".lab") ?? element, props, watch, trigger, base);
}

class Board {
  constructor(root, props, watch, trigger, base) {
    Object.assign(this, { root, props, trigger, base, plots: [], key: "" });
    this.status = make("div", { class: "words", role: "status", "aria-live": "polite" });
    this.beside = make("div", { class: "beside" });
    this.pictures = make("div", { class: "pictures" });
    this.own = make("div", { class: "own" });
    root.replaceChildren(this.status, this.beside, this.pictures, this.own, glossary());
    new MutationObserver(() => this.draw()).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    this.resizer = new ResizeObserver((entries) => {
      for (const { target } of entries) if (window.Plotly && target.data) window.Plotly.Plots.resize(target);
    });
    watch("value", paced(() => this.pull(), DRAW_MS)); // only the newest view is drawn
    this.pull();
  }

  pull() {
    const view = JSON.parse(this.props.value || "null");
    if (!view) return;
    if (view.state === "refused") return this.refuse(view);
    this.view = view;
    this.root.dataset.state = view.error ? "failed" : view.state;
    this.root.dataset.lab = view.lab;
    this.say();
    const names = view.figures.map(({ data }) => data.map((trace) => trace.name ?? ""));
    const key = JSON.stringify([view.lab, view.shape.device, view.shape.reach, names]);
    if (key !== this.key) this.layOut();
    this.key = key;
    this.beside.replaceChildren(...view.beside.map((one) => this.reference(one)));
    this.tell();
    this.draw();
  }

  refuse(view) {
    this.root.dataset.state = "refused";
    this.status.replaceChildren(make("p", { class: "title" }, view.title));
  }

  say() {
    const { view } = this;
    const [word, text] = STATES[view.state] ?? ["", ""];
    const [done, all] = view.rounds ?? [0, 0];
    const lap = view.state === "runs" ? `Every point takes turns: ${done} of ${all} rounds are done.` : text;
    const [claim, ...reasons] = view.title.split(/(?<=[.!]) (?=[A-Z])/);
    const first = claim || (view.error || !word ? view.more[0] ?? "Stopped." : word);
    const rest = view.more.filter((line) => line !== first);
    const seen = new Set();
    const title = make("p", { class: "title" }, ...explained(first, seen));
    const lines = [reasons.join(" "), lap, ...rest].filter(Boolean).map((line) => make("p", { class: "more" }, ...explained(line, seen)));
    this.status.replaceChildren(title, ...lines);
  }

  reference(one) {
    const values = Object.values(one.values).map(([value, unit]) => spoken(value, unit));
    return make("span", { class: "reference" }, make("i", {}, ...explained(one.kind === "library" ? "vendor's library" : one.kind)), " ", ...explained(values.join(", ")));
  }

  // Boxes for the pictures, and the sliders of the visitor's own tile; only when the lab has changed.
  layOut() {
    this.resizer.disconnect();
    for (const plot of this.plots) if (window.Plotly) window.Plotly.purge(plot);
    this.plots = this.view.figures.map(({ layout, data }) => {
      const { title, unit } = layout.meta;
      const plot = make("div", { class: "picture", role: "img", "aria-label": `${title}${unit ? ` in ${unit}` : ""}, ${this.view.shape.picture}` });
      const names = data.length > 1 ? data.map((trace) => make("span", {}, make("b", { style: `--line: var(${trace.meta.colour})` }, ""), trace.name)) : [];
      const caption = make("figcaption", {}, make("b", {}, title), make("small", {}, ...explained(unit)), make("span", { class: "legend" }, ...names));
      this.pictures.append(make("figure", {}, caption, plot));
      return plot;
    });
    this.pictures.replaceChildren(...this.plots.map((plot) => plot.parentNode));
    this.pictures.dataset.count = this.plots.length;
    this.sliders();
    plotly(this.base).then(() => {
      this.draw();
      this.plots.forEach((plot) => this.resizer.observe(plot));
    });
  }

  sliders() {
    const { reach, across, along } = this.view.shape;
    this.told = make("p", { class: "told", role: "status" });
    this.own.replaceChildren();
    if (!reach) return;
    const [first, second] = [this.slider(across, reach[0], "across"), this.slider(along, reach[1], "along")];
    this.move = () => this.trigger("tile", { across: first.chosen(), along: second.chosen() });
    this.own.append(make("h3", {}, "Move the tile yourself"), first.row, second.row, this.told);
  }

  slider(axis, values, name) {
    const input = make("input", { type: "range", min: 0, max: values.length - 1, step: 1, value: Math.floor(values.length / 2), "data-axis": name, "aria-label": axis.title });
    const shown = make("output", {}, "");
    const chosen = () => values[Number(input.value)];
    const tell = () => {
      shown.textContent = chosen().toLocaleString("en");
      input.setAttribute("aria-valuetext", shown.textContent);
    };
    input.addEventListener("input", tell);
    input.addEventListener("change", () => this.move());
    tell();
    return { row: make("label", { class: "slide" }, make("span", {}, axis.title), input, shown), chosen };
  }

  // What the visitor's own tile measured, with the cache that it should fit in.
  tell() {
    const { own, state, shape } = this.view;
    if (!this.told) return;
    if (!own) {
      this.told.textContent = state === "runs" || state === "waits" ? "" : "Let go of a slider, and that one tile is measured.";
      return;
    }
    const place = Object.entries(own.place).map(([name, value]) => `${name}: ${value.toLocaleString("en")}`).join(", ");
    const values = Object.values(own.values).map(([value, unit]) => spoken(value, unit)).join(", ");
    const fit = shape.device === "cpu" && own.bytes ? ` Its working set of ${spoken(own.bytes, "bytes")} ${this.fits(own.bytes)}.` : "";
    this.told.textContent = `${place}, measured: ${values}.${fit}`;
  }

  fits(bytes) {
    const rooms = Object.entries(this.view.machine.caches).sort(([, a], [, b]) => a - b);
    const found = rooms.find(([, room]) => bytes <= room);
    return found ? `should fit in ${found[0]}` : "fits in no cache";
  }

  draw() {
    if (!window.Plotly || !this.view) return;
    const style = getComputedStyle(this.root);
    const read = (name) => style.getPropertyValue(name).trim();
    this.view.figures.forEach((figure, number) => {
      if (!this.plots[number]) return;
      this.colours(figure, read);
      window.Plotly.react(this.plots[number], figure.data, figure.layout, { displayModeBar: false, responsive: false });
    });
  }

  colours({ data, layout }, read) {
    for (const trace of data) {
      const colour = trace.meta.colour && read(trace.meta.colour);
      if (colour) {
        trace.line = { ...trace.line, color: colour };
        trace.marker = { ...trace.marker, color: colour };
        trace.error_y = { ...trace.error_y, color: colour };
      } else {
        const [worst, best] = [read("--well"), read("--lane-1")];
        trace.colorscale = trace.meta.scale === "lower" ? [[0, best], [1, worst]] : [[0, worst], [1, best]];
      }
    }
    for (const shape of layout.shapes ?? []) shape.line.color = read(shape.name === "best" ? "--lane-3" : "--ink");
    for (const note of layout.annotations ?? []) note.font = { ...note.font, color: read("--ink-2") };
    layout.font = { ...layout.font, color: read("--ink-2") };
    for (const axis of [layout.xaxis, layout.yaxis]) Object.assign(axis, { gridcolor: read("--rule"), linecolor: read("--rule") });
    layout.hoverlabel = { bgcolor: read("--card"), bordercolor: read("--rule"), font: { color: read("--ink") }, align: "left" };
  }
}
