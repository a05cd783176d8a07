// Why: a card for each lane, with what its own figures say, and a button for what to try next.

import { amount, make, spoken, swatch } from "./units.js";

const STYLE = `
.because { margin: 14px 0 0; }
.because figcaption { margin-bottom: 8px; }
.because figcaption small { color: var(--ink-2); display: block; font-size: 12.5px; }
.because .cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); gap: 10px; }
.because article { background: var(--card); border: 1px solid var(--rule); border-left: 3px solid var(--lane); border-radius: var(--radius); padding: 10px 12px; min-width: 0; }
.because h4 { margin: 0 0 6px; font-size: 13px; display: flex; align-items: center; gap: 6px; color: var(--ink); }
.because p { margin: 0; font-size: 13.5px; line-height: 1.45; color: var(--ink); overflow-wrap: anywhere; }
.because section + section { margin-top: 10px; padding-top: 10px; border-top: 1px solid var(--rule); }
.because dl { display: flex; flex-wrap: wrap; gap: 4px 14px; margin: 6px 0 0; font-size: 12px; color: var(--ink-2); }
.because dl div { display: flex; gap: 5px; }
.because dd { margin: 0; color: var(--ink); white-space: nowrap; }
.because dt { white-space: nowrap; }
.because dd small { color: var(--ink-2); }
.because button { margin-top: 8px; white-space: normal; text-align: left; }
`;

// `names` are the lanes' names, `data` is what components/why.py makes: for each lane its cards.
export function why(names, data) {
  const cards = make("div", { class: "cards" });
  data.lanes.forEach((lane, number) => {
    if (lane.length) cards.append(card(names, number, lane));
  });
  const text = "From the figures of this run alone. Beside each figure is that of the first lane.";
  const caption = make("figcaption", {}, make("b", {}, "Why"), make("small", {}, text));
  return make("figure", { class: "because" }, make("style", {}, STYLE), caption, cards);
}

function card(names, number, lane) {
  const title = make("h4", {}, swatch(number), names[number]);
  const box = make("article", { "data-lane": number, "aria-label": `Why, lane ${names[number]}` }, title);
  box.style.setProperty("--lane", `var(--lane-${number})`);
  lane.forEach((one, place) => box.append(finding(one, number, place)));
  return box;
}

function finding(one, lane, place) {
  const list = make("dl", {}, ...one.figures.map(figure));
  const parts = [make("p", {}, one.sentence), one.figures.length ? list : null];
  if (one.next) {
    const tell = (event) => event.target.dispatchEvent(new CustomEvent("attempt", { bubbles: true, detail: { lane, card: place } }));
    const title = "Puts this run's setup into the form, with this change";
    parts.push(make("button", { type: "button", class: "quiet", "data-action": "attempt", title, onclick: tell }, `Try next: ${one.next}`));
  }
  return make("section", { "data-rule": one.rule }, ...parts);
}

function figure(one) {
  const other = one.other === null ? null : make("small", {}, ` / ${amount(one.other, one.unit).filter(Boolean).join(" ")}`);
  const name = make("dt", {}, make("abbr", { title: one.definition, tabindex: "0" }, one.title));
  return make("div", {}, name, make("dd", {}, spoken(one.value, one.unit), other));
}
