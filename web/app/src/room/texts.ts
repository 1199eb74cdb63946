// The texts of the room page, as pure functions of its state.

import type { RoomState } from "@breathing-room/client";
import { byCount } from "../moods";

/** The caption below the count. */
export function presentText(present: number): string {
  return present === 1 ? "only you, for now" : "people breathing together";
}

export interface Connection {
  state: RoomState;
  online: boolean;
  /** The room was open before, so this is a reconnect. */
  wasOpen: boolean;
  /** The code of the hub's refusal since the room was last open. */
  refusal?: string | undefined;
  /** The page has a token of a personal link. */
  hasToken?: boolean;
  /** Age of the shown counts in ms. */
  age?: number;
}

/** The connection in one line. */
export function stateText({ state, online, wasOpen, refusal, hasToken = false, age = 0 }: Connection): string {
  if (state === "open") return "You are here.";
  if (state === "checking") return `Checking the connection. These numbers are ${ageText(age)} old.`;
  const refused = refusal === undefined ? undefined : refusalText(refusal, hasToken);
  if (state === "closed") return refused ?? "You could not join this room. Reload to try again.";
  if (!online) return "You are offline. You will be back when the network is.";
  if (refused) return refused;
  if (state === "connecting" && !wasOpen) return "Joining…";
  return "Connection lost. Reconnecting…";
}

/** Why the hub refused the visitor and what to do, by the error's code; undefined if it was no refusal. */
export function refusalText(code: string, hasToken: boolean): string | undefined {
  switch (code) {
    case "unauthorized":
      return hasToken
        ? "The hub does not accept your link any more. Ask your host for a new one."
        : "This room opens with a personal link only. Ask your host for one.";
    case "token-expired":
      return "Your link has ended. Ask your host for a new one.";
    case "forbidden-origin":
      return "This hub does not accept visitors from this address. Its operator can allow it in ALLOWED_ORIGINS.";
    case "bad-room":
      return "There is no such room. A room's name has lower case letters, digits and hyphens, at most 64.";
    case "rate-limit":
      return "This page sent too much at once. Reload to try again.";
    case "too-many":
      return "You are in too many rooms, or too many people are on your network. Trying again in a while…";
    case "too-fast":
      return "Too many attempts from your network. Trying again in a while…";
    case "full":
      return "The hub is full. Trying again in a while…";
    case "restarting":
    case "overloaded":
      return "The hub is busy. Trying again in a while…";
    default:
      return undefined;
  }
}

/** An age in words. */
export function ageText(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return seconds === 1 ? "1 second" : `${seconds} seconds`;
  return `${Math.round(seconds / 60)} minutes`;
}

/** The room in one sentence, for screen readers. */
export function roomSentence(present: number, moods: Readonly<Record<string, number>>): string {
  const people = present === 1 ? "You are the only one here" : `${present} people breathe here`;
  const named = byCount(moods).map(([mood, count]) => `${count} ${mood}`);
  return named.length > 0 ? `${people}: ${named.join(", ")}.` : `${people}.`;
}

/** The visitor's own mood, for screen readers. */
export function moodSentence(mood: string | null): string {
  return mood === null ? "You share no mood." : `Your mood is ${mood}.`;
}

/** The remaining time of a sit, in whole minutes. */
export function remainingText(ms: number): string {
  const minutes = Math.ceil(ms / 60_000);
  if (minutes > 1) return `Sitting, ${minutes} minutes left`;
  return ms > 0 ? "Sitting, the last minute" : "The sit has ended";
}

export interface Sitting {
  state: RoomState;
  sitting: boolean;
  /** The screen is kept on. */
  awake: boolean;
  bell: boolean;
}

/** What happens when the phone locks during a sit. Without a connection nothing is promised. */
export function lockText({ state, sitting, awake, bell }: Sitting): string {
  const stay = "If your phone locks, you stay in the room until the sit ends";
  if (!sitting) return state === "closed" ? "You are not in the room: a sit needs it." : `${stay}. Without a sit you leave it.`;
  const screen = awake ? "The screen stays on. " : "";
  if (state !== "open" && state !== "checking") return `${screen}Not connected: the hub may not know of your sit yet.`;
  return `${screen}${stay}${bell ? ", but the bell may be silent" : ""}.`;
}
