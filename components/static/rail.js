// The rail's manners: what is switched off stays where it is until its group is folded anew, and a note can switch on.

const FILLS = "#presets button, #lane-bar button";

export function mount({ element }) {
  const rail = element.closest("#rail");
  let seen = 0;
  for (const kind of ["pointerdown", "keydown"]) rail.addEventListener(kind, () => (seen = rail.scrollTop), true);
  rail.addEventListener("change", ({ target }) => (target.matches(".fold") ? release(target.closest(".family")) : keep(target)));
  rail.addEventListener("change", () => hold(rail, seen));
  rail.addEventListener("click", ({ target }) => remedy(target.closest("[data-switch]")));
  document.addEventListener("click", ({ target }) => target.closest(FILLS) && release(rail));
  stay();
}

// A button that is pressed by key and then switched off drops the focus: it goes to its counterpart.
function stay() {
  const other = { run: "stop", stop: "run" };
  let last = "";
  document.addEventListener("focusin", ({ target }) => (last = target.id in other && target.matches(":focus-visible") ? target.id : ""));
  document.addEventListener("pointerdown", () => (last = ""));
  new MutationObserver(() => {
    const [pressed, next] = [last, other[last]].map((id) => document.getElementById(id));
    const lost = pressed?.disabled && [pressed, document.body].includes(document.activeElement); // a moment passes until it is
    if (lost && next && !next.disabled) next.focus({ preventScroll: true });
  }).observe(document.getElementById("rail"), { attributes: true, subtree: true, attributeFilter: ["disabled"] });
}

// A row that vanished, or moved up with its neighbours, would be gone from under the pointer.
function keep(input) {
  const off = input.type === "radio" ? input.value === "off" : !input.checked;
  if (!input.matches(".switch input, .choice input")) return;
  for (let row = input.closest(".opt"); row; row = row.parentElement.closest(".opt")) row.classList.toggle("kept", off); // Gradio nests a group in another of the same classes
}

// Near its end a rail that has grown shorter would be scrolled back: it is held where it was by as much empty space.
function hold(rail, seen) {
  rail.style.paddingBottom = "";
  const lost = seen - rail.scrollTop;
  if (lost <= 0) return;
  rail.style.paddingBottom = `${parseFloat(getComputedStyle(rail).paddingBottom) + lost}px`;
  rail.scrollTop = seen;
}

function release(box) {
  for (const row of box.querySelectorAll(".kept")) row.classList.remove("kept");
}

// The button in a lane's note: it presses the switch itself, so that all goes the way of a visitor's own press.
function remedy(button) {
  button?.closest(".lane-editor").querySelector(`.opt-${button.dataset.switch} .switch input:not(:checked)`)?.click();
}
