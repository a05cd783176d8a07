// Draws the charts of a report from the data that the file carries.

const DASHES = ["solid", "dash", "dot", "dashdot"];
const MARKS = ["circle", "diamond", "square", "cross"];
const runs = JSON.parse(document.getElementById("charts").textContent);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// A box for a chart; all of them stand before the first is drawn, so that each is drawn as wide as it will be.
function box(place, chart) {
  const section = document.createElement("section");
  const title = document.createElement("h2");
  const drawing = document.createElement("div");
  section.className = "chart";
  title.textContent = chart.title;
  section.append(title, drawing);
  place.append(section);
  return drawing;
}

function draw(drawing, chart) {
  const traces = chart.traces.map((trace, lane) => ({
    ...trace,
    name: trace.name.replaceAll("<", "‹"),
    mode: chart.mode,
    type: "scatter",
    line: { color: colour(`--lane-${lane % 4}`), dash: DASHES[lane % 4], width: 2 },
    marker: { color: colour(`--lane-${lane % 4}`), symbol: MARKS[lane % 4], size: 5 },
    hovertemplate: `%{y:.4~g} ${chart.y} at %{x:.4~g} ${chart.x}`,
  }));
  const axis = (text) => ({ title: { text, font: { size: 11 } }, rangemode: "tozero", gridcolor: colour("--rule"), zerolinecolor: colour("--rule"), automargin: true });
  const layout = {
    margin: { l: 44, r: 8, t: 8, b: 34 },
    font: { size: 11, color: colour("--ink-2"), family: "IBM Plex Sans, system-ui, sans-serif" },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    legend: { orientation: "h", y: 1.12, x: 0 },
    xaxis: axis(chart.x),
    yaxis: axis(chart.y),
  };
  Plotly.newPlot(drawing, traces, layout, { displayModeBar: false, responsive: true });
}

const places = [...document.querySelectorAll(".charts")];
const pairs = places.flatMap((place) => runs[Number(place.dataset.run)].map((chart) => [box(place, chart), chart]));
for (const [drawing, chart] of pairs) draw(drawing, chart);
