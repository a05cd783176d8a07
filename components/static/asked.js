// Over the verdict: which run it is of and why it was asked; whether the form asks that still; which question it asks.

import { make } from "./units.js";

const EARLIER = "The form holds another setup by now. “Use this setup” puts this one back.";

export class Asked {
  constructor(root) {
    this.root = root;
    this.name = make("span", { class: "name" });
    this.model = make("span", { class: "of" });
    this.mark = make("span", { class: "badge earlier", title: EARLIER, hidden: true }, "from an earlier setup");
    this.why = make("details", { hidden: true });
    this.box = make("div", { class: "asked", hidden: true }, this.name, this.model, this.mark, this.why);
  }

  // A run's first line. Lessons have stages of their own, which say themselves what they ask.
  show({ key, title, model, why = [] }) {
    this.key = key;
    this.mark.hidden = true;
    this.root.removeAttribute("data-earlier");
    this.box.hidden = !this.main;
    this.name.textContent = title || "A setup of your own";
    this.model.textContent = model ?? "";
    this.why.hidden = !why.length;
    this.why.open = false;
    this.why.replaceChildren(make("summary", {}, "Why this question"), ...why.map((text) => make("p", {}, text)));
  }

  get main() {
    return Boolean(this.root.closest("#stage"));
  }

  // What the form asks now: the list shows which question it is, and a run of another setup says so.
  against(setup) {
    if (!this.main) return;
    choose(setup?.question);
    const earlier = Boolean(this.key && setup?.key && setup.key !== this.key);
    this.mark.hidden = !earlier;
    this.root.toggleAttribute("data-earlier", earlier);
  }
}

function choose(question) {
  const row = document.querySelector("#presets");
  row?.querySelectorAll("[aria-current]").forEach((chip) => chip.removeAttribute("aria-current"));
  const chip = question && row?.querySelector(`#preset-${CSS.escape(question)}`);
  if (!chip) return;
  chip.setAttribute("aria-current", "true");
  const [outer, inner] = [row.getBoundingClientRect(), chip.getBoundingClientRect()];
  if (inner.right > outer.right || inner.left < outer.left) row.scrollLeft += inner.left - outer.left - outer.width / 3;
}
