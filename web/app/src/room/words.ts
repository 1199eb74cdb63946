// What the room page says, as pure functions of what is so.

import type { RoomState } from "@breathing-room/client";
import { byCount } from "../moods";

/** What stands under the number of people. */
export function presentWords(present: number): string {
  return present === 1 ? "only you, for now" : "people breathing together";
}

/** The connection in words. Whoever was here before comes back, whatever it takes. */
export function stateWords(state: RoomState, online: boolean, wasHere: boolean): string {
  if (state === "open") return "You are here.";
  if (state === "closed") return "The room did not let you in. Reload to try again.";
  if (!online) return "You are offline. Back once the network is.";
  if (state === "connecting" && !wasHere) return "Coming in…";
  return "Connection lost. Coming back in a moment…";
}

/** The room in one sentence, for whoever listens. */
export function roomSentence(present: number, moods: Record<string, number>): string {
  const people = present === 1 ? "You are the only one here" : `${present} people breathe here`;
  const named = byCount(moods).map(([mood, count]) => `${count} ${mood}`);
  return named.length > 0 ? `${people}: ${named.join(", ")}.` : `${people}.`;
}
