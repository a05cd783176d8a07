// The board of a study: one view (JSON) at a time, with its sentence, its picture, and its points as rows.

import { plotly } from "./charts.js";
import { copier } from "./copied.js";
import { make, paced, spoken } from "./units.js";

const DRAW_MS = 150;
const SILENT_MS = 9000; // the server sends something every two seconds while a study runs

export function mount({ element, props, watch, trigger, base }) {
  new Board(element.querySelector(".explore") ?? element, props, watch, trigger, base);
}

class Board {
  constructor(root, props, watch, trigger, base) {
    Object.assign(this, { root, props, trigger, base, view: null, heard: 0 });
    this.status = make("div", { class: "words", role: "status", "aria-live": "polite" });
    this.bar = make("progress", { max: 1, value: 0, "aria-label": "Points measured" });
    this.figures = make("div", { class: "figures" });
    this.rows = make("div", { class: "rows", tabindex: "0", "aria-label": "All points" });
    this.chosen = new Set();
    this.duel = make("button", { type: "button", class: "duel", onclick: () => this.race() }, "Race these two");
    root.replaceChildren(this.status, this.bar, this.figures, make("div", { class: "tools" }, this.duel, copier(() => this.rows.querySelector("table") ?? make("table", {}, make("tr", {})))), this.rows);
    new MutationObserver(() => this.draw()).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    new ResizeObserver(() => window.Plotly && this.plots().forEach((plot) => plot.data && window.Plotly.Plots.resize(plot))).observe(this.figures);
    watch("value", paced(() => this.pull(), DRAW_MS)); // only the newest view is drawn
    setInterval(() => this.heal(), SILENT_MS / 3);
    this.pull();
  }

  pull() {
    const view = JSON.parse(this.props.value || "null");
    if (!view) return;
    this.heard = Date.now();
    this.root.dataset.state = view.state;
    const lines = view.more.filter(Boolean).map((line) => make("p", { class: "more" }, line));
    this.status.replaceChildren(make("p", { class: "title" }, view.title), ...lines);
    if (view.state === "refused") return;
    this.view = view;
    this.bar.max = view.total || 1;
    this.bar.value = view.ended;
    this.table();
    this.draw();
  }

  // A connection that was lost does not say so: ask again when a running study has been silent for long.
  heal() {
    if (this.view?.state === "running" && Date.now() - this.heard > SILENT_MS) {
      this.heard = Date.now();
      this.trigger("heal", {});
    }
  }

  table() {
    const { columns, rows } = this.view;
    this.chosen = new Set([...this.chosen].filter((number) => rows.some((row) => row.number === number)));
    this.offer();
    if (!rows.length) return this.rows.replaceChildren();
    const head = make("tr", {}, make("th", {}, "Configuration"), ...columns.map((one) => make("th", { title: one.definition, class: one.wide ? "wide" : null }, one.title)));
    this.rows.replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows.map((row) => this.row(row)))));
  }

  row(row) {
    const open = make("button", { type: "button", title: "Put this configuration into the form", onclick: () => this.open(row.number) }, row.label);
    const choose = make("input", { type: "checkbox", "aria-label": `Choose ${row.label}`, checked: this.chosen.has(row.number), disabled: Boolean(row.why) });
    choose.addEventListener("change", () => this.choose(row.number, choose.checked));
    const name = make("span", { class: "of" }, choose, open);
    if (row.why) return make("tr", { class: "lost" }, make("td", {}, name), make("td", { colspan: this.view.columns.length }, row.why));
    const cells = this.view.columns.map((one, place) => make("td", { class: one.wide ? "wide" : null }, spoken(row.values[place], one.unit) + (row.stated && one.unit === "nats" ? " stated" : "")));
    return make("tr", { class: row.front ? "front" : null }, make("td", {}, name), ...cells);
  }

  // A point goes into the form of the race, so that is where to look next.
  open(number) {
    this.trigger("point", { number });
    location.hash = "#race";
  }

  choose(number, on) {
    this.chosen[on ? "add" : "delete"](number);
    if (this.chosen.size > 2) this.chosen.delete(this.chosen.values().next().value);
    this.table();
  }

  offer() {
    this.duel.disabled = this.chosen.size !== 2;
    this.duel.hidden = this.view.rows.filter((row) => !row.why).length < 2;
  }

  race() {
    this.trigger("race", { numbers: [...this.chosen] });
    location.hash = "#race";
  }

  plots() {
    return [...this.figures.querySelectorAll(".picture")];
  }

  async draw() {
    const figures = this.view?.figures ?? [];
    while (this.figures.children.length > figures.length) this.figures.lastChild.remove();
    if (!figures.length) return;
    await plotly(this.base);
    while (this.figures.children.length < figures.length) this.figures.append(make("figure", {}, make("figcaption", {}), make("div", { class: "picture", role: "img" })));
    await Promise.all(figures.map((figure, place) => this.one(figure, this.figures.children[place])));
  }

  async one(figure, { firstChild: caption, lastChild: plot }) {
    caption.textContent = figure.layout.meta.title;
    plot.setAttribute("aria-label", figure.layout.meta.title);
    this.colours(figure);
    await window.Plotly.react(plot, figure.data, figure.layout, { displayModeBar: false, responsive: false });
    plot.removeAllListeners("plotly_click");
    plot.on("plotly_click", ({ points }) => {
      const number = points[0]?.customdata?.[0];
      if (Number.isInteger(number)) this.open(number);
    });
  }

  colours({ data, layout }) {
    const style = getComputedStyle(this.root);
    const read = (name) => style.getPropertyValue(name).trim();
    for (const trace of data) {
      const colour = read(trace.meta.colour);
      trace.marker = { ...trace.marker, color: colour };
      if (trace.type === "scatter") trace.line = { ...trace.line, color: colour };
      if (trace.error_y) trace.error_y = { ...trace.error_y, color: read("--ink-2") };
      trace.textfont = { color: read(trace.type === "heatmap" ? "--ink" : "--ink-2"), size: 11 };
      if (trace.type === "heatmap") trace.colorscale = [[0, read("--well")], [1, `color-mix(in srgb, ${colour} 45%, ${read("--card")})`]].map(([at, tone]) => [at, solid(tone)]);
    }
    layout.font = { ...layout.font, color: read("--ink-2") };
    for (const axis of [layout.xaxis, layout.yaxis]) Object.assign(axis, { gridcolor: read("--rule"), linecolor: read("--rule") });
    layout.hoverlabel = { bgcolor: read("--card"), bordercolor: read("--rule"), font: { color: read("--ink") }, align: "left" };
  }
}

// Plotly mixes colours itself and knows plain ones only.
function solid(colour) {
  const pen = document.createElement("canvas").getContext("2d");
  pen.fillStyle = colour;
  pen.fillRect(0, 0, 1, 1);
  return `rgb(${[...pen.getImageData(0, 0, 1, 1).data].slice(0, 3).join(",")})`;
}
