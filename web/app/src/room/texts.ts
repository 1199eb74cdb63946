// The texts of the room page, as pure functions of its state.

import type { RoomState } from "@breathing-room/client";
import { byCount } from "../moods";

/** The caption below the count. */
export function presentText(present: number): string {
  return present === 1 ? "only you, for now" : "people breathing together";
}

/** The connection state. `wasOpen`: the room was open before, so this is a reconnect. */
export function stateText(state: RoomState, online: boolean, wasOpen: boolean): string {
  if (state === "open") return "You are here.";
  if (state === "closed") return "You could not join this room. Reload to try again.";
  if (!online) return "You are offline. You will be back when the network is.";
  if (state === "connecting" && !wasOpen) return "Joining…";
  return "Connection lost. Reconnecting…";
}

/** The room in one sentence, for screen readers. */
export function roomSentence(present: number, moods: Record<string, number>): string {
  const people = present === 1 ? "You are the only one here" : `${present} people breathe here`;
  const named = byCount(moods).map(([mood, count]) => `${count} ${mood}`);
  return named.length > 0 ? `${people}: ${named.join(", ")}.` : `${people}.`;
}
