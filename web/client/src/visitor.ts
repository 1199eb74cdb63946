/** The visitor id of this browser: random, stored, the same in all tabs. */

import { randomHex } from "./id.js";
import { browserStore } from "./store.js";

const KEY = "breathing-room:visitor";

/** The id if nothing can be stored: the same for all rooms of this page. */
let pageVisitor: string | undefined;

export function storedVisitor(): string {
  const stored = browserStore.get(KEY);
  if (stored && isVisitor(stored)) return stored;
  pageVisitor ??= randomHex();
  browserStore.set(KEY, pageVisitor);
  return pageVisitor;
}

/** Checks the protocol's rule; the hub rejects every other id. */
export function isVisitor(text: string): boolean {
  return /^[\w-]{1,64}$/.test(text);
}
