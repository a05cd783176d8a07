// Tables that can be taken along: as Markdown, which pastes well into an issue, a chat and a document.

import { make } from "./units.js";

const SHOWN_MS = 1600;

// A quiet button that copies the table which `find` gives when it is pressed.
export function copier(find) {
  const label = "Copy table";
  const button = make("button", { type: "button", class: "copier", onclick: async () => {
    button.textContent = (await put(markdown(find()))) ? "Copied" : "The browser did not allow it";
    setTimeout(() => (button.textContent = label), SHOWN_MS);
  } }, label);
  return button;
}

export function markdown(table) {
  const rows = [...table.rows].map((row) => [...row.cells].map((cell) => cell.innerText.replace(/\s+/g, " ").replaceAll("|", "\\|").trim()));
  const [head, ...body] = rows.map((cells) => `| ${cells.join(" | ")} |`);
  return [head, `|${" --- |".repeat(rows[0].length)}`, ...body].join("\n");
}

// Pages that are served without TLS have no clipboard: there the text goes by way of a field.
async function put(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false);
  const field = make("textarea", { "aria-hidden": "true", style: "position: fixed; opacity: 0" });
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  return done;
}
