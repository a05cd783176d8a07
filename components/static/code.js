// Copy as code: every lane as a text that runs without this page, folded away, with a button that copies it.

import { make, swatch } from "./units.js";

const STYLE = `
.code > summary { cursor: pointer; font-size: 13.5px; padding: 4px 0; }
.code section { background: var(--card); border: 1px solid var(--rule); border-radius: var(--radius); padding: 8px 12px; margin: 6px 0; min-width: 0; }
.code header { display: flex; flex-wrap: wrap; gap: 6px 10px; align-items: center; font-size: 13px; }
.code button { border: 1px solid var(--rule); background: var(--well); color: var(--ink); border-radius: 8px; padding: 3px 9px; font: inherit; font-size: 12.5px; cursor: pointer; }
.code button:hover { border-color: var(--ink-3); }
.code section details summary { cursor: pointer; font-size: 12.5px; color: var(--ink-2); padding: 4px 0; }
.code pre { margin: 4px 0 0; max-height: 320px; overflow: auto; background: var(--well); color: var(--ink); border-radius: 8px; padding: 8px 10px; font: 12px/1.5 "IBM Plex Mono", monospace; white-space: pre; }
.code p { margin: 4px 0 0; font-size: 12.5px; color: var(--ink-2); }
`;

// `names` are the lanes' names, `data.lanes` what components/code.py makes: for each lane its forms.
export function code(names, data) {
  const lanes = data.lanes.map((forms, number) => lane(names[number], number, forms));
  return make("details", { class: "code" }, make("style", {}, STYLE), make("summary", {}, "Copy a lane as code"), ...lanes);
}

function lane(name, number, forms) {
  const copies = forms.filter((form) => form.text).map((form) => copier(form));
  const texts = forms.map((form) => (form.text ? shown(form) : make("p", {}, `${form.title}: ${form.why}`)));
  return make("section", { "data-lane": number }, make("header", {}, swatch(number), make("b", {}, name), ...copies), ...texts);
}

function shown(form) {
  return make("details", {}, make("summary", {}, form.title), make("pre", { tabindex: "0", "data-form": form.form }, form.text));
}

function copier(form) {
  const said = `Copy: ${form.title}`;
  return make("button", { type: "button", "data-copy": form.form, onclick: (event) => copy(event.target, form.text, said) }, said);
}

// The clipboard is closed to pages without a secure address: there the text is opened and selected instead.
async function copy(button, text, said) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    const pre = [...button.closest("section").querySelectorAll("pre")].find((one) => one.textContent === text);
    pre.closest("details").open = true;
    getSelection().selectAllChildren(pre);
    button.textContent = "Selected: press Ctrl+C";
  }
  setTimeout(() => (button.textContent = said), 2000);
}
