// What a run can be saved to: a quiet row of buttons. Whoever holds the run's number hears "save".

import { make } from "./units.js";

const STYLE = `
.files { display: flex; flex-wrap: wrap; gap: 4px 6px; align-items: center; font-size: 12.5px; color: var(--ink-2); }
.files button { border: 1px solid var(--rule); background: var(--card); color: var(--ink); border-radius: 8px; padding: 4px 9px; font: inherit; cursor: pointer; }
.files button:hover { border-color: var(--ink-3); }
`;

// `data.kinds` is what components/files.py offers.
export function files(names, data) {
  return make("div", { class: "files" }, make("style", {}, STYLE), "Save this run: ", ...buttons(data.kinds, "save"));
}

// The same folded into one button beside the verdict; nothing where nothing was measured.
export function saver(data) {
  if (!data) return null;
  const menu = make("details", { class: "saver" }, make("summary", { class: "quiet" }, "Save"), make("div", {}, ...buttons(data.kinds, "save")));
  const close = ({ target }) => menu.isConnected ? !menu.contains(target) && (menu.open = false) : document.removeEventListener("click", close);
  document.addEventListener("click", close);
  menu.addEventListener("save", () => (menu.open = false));
  menu.addEventListener("keydown", ({ key }) => key === "Escape" && (menu.open = false));
  return menu;
}

// One button for each kind of file; each tells its kind by an event of this name.
export function buttons(kinds, name) {
  const tell = (kind) => (event) => event.target.dispatchEvent(new CustomEvent(name, { bubbles: true, detail: { kind } }));
  return kinds.map(({ name: kind, title, tip }) => make("button", { type: "button", title: tip, "data-kind": kind, onclick: tell(kind) }, title));
}
