// The overlaid charts. Figures come from Python; colours from CSS variables, so that themes switch live.

import { Live } from "./live.js";
import { make, swatch } from "./units.js";

let loading = null;

export function plotly(base) {
  loading ??= new Promise((done, failed) => {
    const script = make("script", { src: `${base}plotly.min.js` });
    script.onload = () => done(window.Plotly);
    script.onerror = failed;
    document.head.append(script);
  });
  return loading;
}

export class Charts {
  constructor(root, base, reduced) {
    this.root = root;
    this.base = base;
    this.reduced = reduced;
    this.charts = [];
    this.dirty = new Set();
    new MutationObserver(() => this.recolour()).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    this.resizer = new ResizeObserver((entries) => {
      for (const { target } of entries) if (window.Plotly && target.data && target.clientWidth) window.Plotly.Plots.resize(target);
    });
  }

  // Lay out empty charts. `figures` are plotly.py figures; their meta says id, title, unit and scale,
  // and which series each lane has where there are several.
  build(figures) {
    this.resizer.disconnect();
    for (const chart of this.charts) if (window.Plotly) window.Plotly.purge(chart.plot);
    this.charts = figures.map((figure) => {
      const { id, title, unit, scale, series = [id] } = figure.layout.meta;
      const legend = make("span", { class: "legend" });
      figure.data.slice(0, figure.data.length / series.length).forEach((trace, number) => legend.append(make("span", {}, swatch(number), trace.name)));
      const label = `${title} in ${unit} over seconds, one line a lane`;
      const plot = make("div", { class: "plot", role: "img", "aria-label": label });
      const live = new Live(figure, label);
      const box = make("figure", { class: "chart", "data-chart": id }, make("figcaption", {}, make("b", {}, title), make("small", {}, unit), legend), plot, live.canvas);
      return { id, figure, scale, series, plot, live, box };
    });
    this.root.replaceChildren(...this.charts.map((chart) => chart.box));
    this.charts.forEach((chart) => this.dirty.add(chart));
    plotly(this.base).then(() => {
      this.draw();
      this.charts.forEach((chart) => this.resizer.observe(chart.plot));
    });
  }

  // While lanes run the charts are drawn on canvases, and afterwards as plots that one can point at and zoom.
  run(live) {
    this.root.classList.toggle("running", live);
    this.recolour();
  }

  clear(lane) {
    for (const chart of this.charts) {
      for (const trace of this.traces(chart, lane)) [trace.x, trace.y] = [[], []];
      this.dirty.add(chart);
    }
  }

  add(lane, points) {
    for (const chart of this.charts) {
      this.traces(chart, lane).forEach((trace, number) => {
        const [xs, ys] = points[chart.series[number]] ?? [[], []];
        if (!xs.length) return;
        trace.x.push(...xs);
        trace.y.push(...ys.map((y) => y * chart.scale));
        this.dirty.add(chart);
      });
    }
  }

  // A lane's traces: one for each series of the chart, all lanes' first series before all lanes' second.
  traces(chart, lane) {
    const lanes = chart.figure.data.length / chart.series.length;
    return chart.series.map((_, number) => chart.figure.data[number * lanes + lane]);
  }

  draw() {
    const live = this.root.classList.contains("running");
    if (!live && !window.Plotly) return;
    if (this.dirty.size) this.theme ??= this.colours();
    for (const chart of this.dirty) live ? chart.live.draw(this.themed(chart)) : this.react(chart);
    this.dirty.clear();
  }

  react(chart) {
    this.paint(chart);
    chart.figure.layout.datarevision = (chart.figure.layout.datarevision ?? 0) + 1;
    window.Plotly.react(chart.plot, chart.figure.data, chart.figure.layout, { displayModeBar: false, responsive: false });
  }

  recolour() {
    this.theme = null;
    this.charts.forEach((chart) => this.dirty.add(chart));
    this.draw();
  }

  // The theme's colours by the names of their variables; read once a theme, since reading them costs a layout.
  colours() {
    const style = getComputedStyle(this.root);
    const known = {};
    return (name) => (known[name] ??= style.getPropertyValue(name).trim());
  }

  themed({ figure }) {
    const { family, size } = figure.layout.font;
    return { ink: this.theme("--ink-2"), rule: this.theme("--rule"), font: `${size}px ${family}`, traces: figure.data.map((trace) => this.theme(trace.meta.colour)) };
  }

  paint({ figure }) {
    for (const trace of figure.data) {
      const colour = this.theme(trace.meta.colour);
      trace.line = { ...trace.line, color: colour };
      trace.marker = { ...trace.marker, color: colour };
    }
    const { layout } = figure;
    const empty = figure.data.every((trace) => !trace.x.length);
    layout.xaxis.showticklabels = layout.yaxis.showticklabels = !empty;
    layout.font = { ...layout.font, color: this.theme("--ink-2") };
    for (const axis of [layout.xaxis, layout.yaxis]) {
      axis.gridcolor = this.theme("--rule");
      axis.linecolor = this.theme("--rule");
    }
    layout.hoverlabel = { bgcolor: this.theme("--card"), bordercolor: this.theme("--rule"), font: { color: this.theme("--ink") } };
  }
}
