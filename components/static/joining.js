// How to get into a workshop: its link, in words to be typed and as a code for a phone's camera.

import { make } from "./units.js";

const OWN = /^(localhost|127\.[\d.]+|\[::1\])$/; // by these every computer finds itself

// By `number`, since a phone seldom knows the name of a computer; a name with a dot, a number, and one that is served
// over TLS are known to all.
export function roomLink(number, code) {
  const { protocol, hostname, host, port, pathname } = location;
  const known = (/[.:]/.test(hostname) && !OWN.test(hostname)) || protocol === "https:" || !number;
  return `${protocol}//${known ? host : number + (port ? `:${port}` : "")}${pathname}?room=${code}`;
}

export function joining(link, code, drawer, seat) {
  const { host, pathname } = new URL(link);
  const named = host === location.host || OWN.test(location.hostname) ? null : make("small", {}, ` (or ${location.host})`);
  const words = make("p", {}, "Open ", make("b", {}, host + pathname.replace(/\/$/, "")), named, " and enter ", make("b", { class: "code" }, code));
  const drawn = make("img", { src: `${drawer}?${new URLSearchParams({ seat, link })}`, alt: "The link as a code for a phone's camera", width: 132, height: 132 });
  return [words, drawn];
}
