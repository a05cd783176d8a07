// Where a lane's text leaves the first lane's: a mark at the token, and a quiet tint from there on.

import { make } from "./units.js";

// `places` holds { token, character } for each request, or null where its text is the same; `fate` says what it means.
export function part(panes, places, reference, fate) {
  places.forEach((place, request) => place && panes[request] && tint(panes[request], place, reference, fate));
}

function tint(pane, { token, character }, reference, fate) {
  const rest = split(pane, character);
  if (!rest.length) return;
  const tip = `From here, token ${token + 1}, the text is not lane ${reference}'s. ${fate}`;
  const mark = make("abbr", { class: "fork", title: tip, tabindex: "0", "aria-label": tip }, "≠");
  const tail = make("span", { class: "parted" });
  rest[0].before(mark, tail);
  tail.append(...rest);
}

// The nodes of a pane from its n-th character on; characters are counted as Python counts them.
function split(pane, character) {
  let left = character;
  const nodes = [...pane.childNodes];
  for (const [number, node] of nodes.entries()) {
    const letters = Array.from(node.textContent);
    if (letters.length <= left) {
      left -= letters.length;
      continue;
    }
    const inside = node.nodeType === Node.TEXT_NODE && left;
    const first = inside ? node.splitText(letters.slice(0, left).join("").length) : node;
    return [first, ...nodes.slice(number + 1)];
  }
  return [];
}
