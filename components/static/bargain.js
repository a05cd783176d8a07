// What the lanes cost beside their speed, a quiet line for each under the verdict.

import { make } from "./units.js";

const TIP = "Memory: the peak, against the first lane's. Next token: how often, in a page of English, the lane's likeliest next token is not that of the unquantized model.";

// `lines` are what components/bargain.py makes; they go to the `words` of the verdict, before where a recording is from.
export function bargain(lines, words) {
  if (!lines?.length) return;
  const said = make("p", { class: "bargain", title: TIP }, ...lines.flatMap((line, number) => (number ? [make("br"), line] : [line])));
  words.insertBefore(said, words.querySelector(".origin"));
}
