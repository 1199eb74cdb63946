/** Who this browser is: a random id, the same in all tabs and at the next visit. */

import { randomHex } from "./id.js";
import { browserStore } from "./store.js";

const KEY = "breathing-room:visitor";

/** For browsers that keep nothing: the same for all rooms of this page. */
let ofThisPage: string | undefined;

export function keptVisitor(): string {
  const kept = browserStore.get(KEY);
  if (kept && isVisitor(kept)) return kept;
  ofThisPage ??= randomHex(16);
  browserStore.set(KEY, ofThisPage);
  return ofThisPage;
}

/** The protocol's rule; the hub refuses everything else. */
export function isVisitor(text: string): boolean {
  return /^[\w-]{1,64}$/.test(text);
}
