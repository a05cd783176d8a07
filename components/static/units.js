// Numbers as people read them. Unknown is a dash.

export const DASH = "–";

export function amount(value, unit) {
  if (value === null || value === undefined || Number.isNaN(value)) return [DASH, ""];
  if (unit === "bytes") {
    return value >= 1e9 ? [(value / 1e9).toFixed(2), "GB"] : [(value / 1e6).toFixed(value < 1e7 ? 1 : 0), "MB"];
  }
  if (unit === "ms" && value >= 10000) return [(value / 1000).toFixed(1), "s"];
  if (unit === "nats" && value < 0.1) return [value && value < 1e-4 ? "< 0.0001" : String(Number(value.toPrecision(2))), unit];
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return [value.toFixed(digits), unit];
}

export function spoken(value, unit) {
  return amount(value, unit).filter(Boolean).join(" ");
}

export function times(ratio) {
  if (ratio === null || ratio === undefined) return DASH;
  return (ratio >= 9.95 ? ratio.toFixed(1) : ratio.toFixed(2)) + "×";
}

// A small DOM builder: text goes in as text, never as markup.
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "onclick") node.addEventListener("click", value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

// The swatch of a lane: its colour and its dash, as in the charts.
export function swatch(number) {
  const line = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  line.setAttribute("class", `swatch dash-${number}`);
  line.setAttribute("viewBox", "0 0 22 6");
  line.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", "M1 3H21");
  line.append(path);
  line.style.setProperty("--lane", `var(--lane-${number})`);
  return line;
}

// A drawing on its own clock: asked for at any pace, done no more often than is comfortable.
export function paced(draw, leastMs) {
  let waiting = false;
  let cost = 0;
  const run = () => {
    waiting = false;
    const began = performance.now();
    draw();
    cost = 0.7 * cost + 0.3 * (performance.now() - began);
  };
  return () => {
    if (waiting) return;
    waiting = true;
    setTimeout(run, Math.max(leastMs, 3 * cost));
  };
}
