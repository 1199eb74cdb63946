// The visitor's token of a personal link: `/room/lobby#token=…`. It is kept for the tab and removed from the address,
// so that it is in no history, bookmark or screenshot.

import { load, save } from "../storage";

/** Returns the token of the fragment, or null. */
export function tokenOf(fragment: string): string | null {
  return new URLSearchParams(fragment.slice(1)).get("token") || null;
}

/** Takes the token of the address, or the one that the tab has for this room. */
export function takeToken(room: string): string | null {
  const key = `breathing-room:token:${room}`;
  const token = tokenOf(location.hash);
  if (token === null) return load("sessionStorage", key);
  save("sessionStorage", key, token);
  history.replaceState(history.state, "", location.pathname + location.search);
  return token;
}
