// What a run came to, in sentences: the verdict's, and where there is none why lanes failed.

import { make } from "./units.js";

// The sentences of a verdict: the claim with its evidence in brackets, then the reasons.
export function parted(text) {
  return text.split(/(?<=[.!]) (?=[A-Z])/);
}

export function emphasised(claim) {
  const [, what, evidence] = /^(.*?)( \(.*)?$/s.exec(claim);
  return [make("b", {}, what), evidence ? make("span", {}, evidence) : null];
}

// Why lanes failed, in a sentence each and what to do; once, where all of them say the same.
export function failures(line, lanes) {
  const whys = new Set(line.lanes.map((lane) => lane.why).filter(Boolean));
  const alike = whys.size === 1 && line.lanes.every((lane) => lane.why);
  if (alike && line.lanes.length > 1) return parted([...whys][0]);
  const failed = line.lanes.flatMap((lane, number) => (lane.why ? parted(`Lane ${lanes[number].name}: ${lane.why}`) : []));
  if (failed.length) return failed;
  return [line.state === "stopped" ? (line.replayable ? "Stopped. What was measured so far stays below." : "Stopped before anything was measured.") : "One lane alone is measured, not compared."];
}
