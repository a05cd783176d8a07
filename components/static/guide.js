// The field guide beside what it explains: a question mark at every switch opens the lesson of its optimization.

import { make } from "./units.js";

export function mount({ element }) {
  const sheet = make("aside", { class: "lesson-sheet", popover: "auto", "aria-label": "Lesson" });
  document.body.append(sheet);
  const open = (lessons, mark) => {
    sheet.replaceChildren(...lessons.flatMap((lesson) => [make("h3", {}, lesson.querySelector("summary").textContent), ...copies(lesson)]));
    sheet.showPopover();
    place(sheet, mark);
  };
  for (const group of document.querySelectorAll("#rail .opt")) {
    const lessons = lessonsOf(group, element);
    if (!lessons.length || group.parentElement.closest(".opt")) continue;
    const title = lessons.length > 1 ? "the engines" : lessons[0].querySelector("summary").textContent;
    const mark = make("button", { type: "button", class: "lesson-mark", "aria-label": `What is this? ${title}`, title: "What is this?", onclick: () => open(lessons, mark) }, "?");
    group.append(mark);
  }
}

// A switch's lesson is that of its name; the choice of the engine has one for each engine.
function lessonsOf(group, guide) {
  const name = [...group.classList].find((one) => one.startsWith("opt-"))?.slice(4);
  if (name === "backend") return [...guide.querySelectorAll(".engines details")];
  return [...guide.querySelectorAll(`[id="lesson-${name}"]`)];
}

function copies(lesson) {
  return [...lesson.children].slice(1).map((part) => part.cloneNode(true));
}

// Beside the rail where there is room, else below the mark.
function place(sheet, mark) {
  const rail = document.querySelector("#rail").getBoundingClientRect();
  const at = mark.getBoundingClientRect();
  const beside = innerWidth - rail.right > 380;
  sheet.style.left = beside ? `${rail.right + 10}px` : "12px";
  sheet.style.top = `${Math.max(12, Math.min(beside ? at.top - 20 : at.bottom + 8, innerHeight - sheet.offsetHeight - 12))}px`;
}
