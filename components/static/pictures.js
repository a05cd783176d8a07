// The pictures under the comparison of a race, by the names of components/pictures.py.

import { code } from "./code.js";
import { files } from "./files.js";
import { launches } from "./launches.js";
import { memoryStack } from "./memory_stack.js";
import { quality } from "./quality.js";
import { roofline } from "./roofline.js";
import { why } from "./why.js";

const PICTURES = { code, files, launches, memory_stack: memoryStack, quality, roofline, why };

// DOM nodes in the order in which the server sent the pictures. `names` are the lanes' names.
export function drawn(names, pictures) {
  return Object.entries(pictures ?? {}).filter(([, data]) => data).map(([name, data]) => PICTURES[name](names, data));
}
