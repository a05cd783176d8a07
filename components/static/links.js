// Links to a run or a setup: made, copied, and taken out of the address once something else is shown.

import { make } from "./units.js";

const KEYS = ["run", "lanes"];
const SAID_MS = 2500;

// The page's address that opens this, for instance { run: "…" }.
export function address(asked) {
  return `${location.origin}${location.pathname}?${new URLSearchParams(asked)}`;
}

// The address names what was opened; a reload after another run must not bring it back.
export function settle(run) {
  const query = new URLSearchParams(location.search);
  if (query.get("run") === run || !KEYS.some((key) => query.has(key))) return;
  for (const key of KEYS) query.delete(key);
  const rest = query.toString();
  history.replaceState(history.state, "", `${location.pathname}${rest ? `?${rest}` : ""}${location.hash}`);
}

// A button that copies the link to what was asked.
export function copier(asked) {
  return linker(() => address(asked));
}

// A button that copies the link which `find` gives when it is pressed.
export function linker(find) {
  const label = "Copy link";
  return make("button", { type: "button", class: "quiet", "data-action": "link", onclick: (event) => copied(event.target, find(), label) }, label);
}

// The clipboard is closed to pages without a secure address: there the link is put beside the button, selected.
async function copied(button, link, label) {
  try {
    await navigator.clipboard.writeText(link);
    button.textContent = "Copied";
  } catch {
    const field = make("input", { class: "link", readonly: true, value: link, "aria-label": "Link, to be copied" });
    button.parentNode.querySelector("input.link")?.remove();
    button.after(field);
    field.select();
    button.textContent = "Press Ctrl+C";
  }
  setTimeout(() => (button.textContent = label), SAID_MS);
}

// The button at the form. The server makes the link's text, since it knows what the form says.
export function mount({ element, props, watch, trigger }) {
  const label = "Copy link to this setup";
  const button = make("button", { type: "button", class: "quiet", "data-action": "link", title: "Whoever opens it finds this workload and these lanes in the form", onclick: () => trigger("ask") }, label);
  const problem = make("p", { class: "problem", role: "alert" });
  element.querySelector(".share").replaceChildren(button, problem);
  watch("value", () => {
    const made = JSON.parse(props.value || "{}");
    problem.textContent = made.problem ?? "";
    if (made.lanes) copied(button, address({ lanes: made.lanes }), label);
  });
}
